// Measures a pool of goroutines around a channel of closures in burst, round trip and as_completed.
//
// Arguments: the number of jobs and the number of workers.
// Runs each workload once before it is measured.
// Prints the nanoseconds per job of each as a JSON list.
package main

import (
	"encoding/json"
	"os"
	"strconv"
	"time"
)

// submit sends a job to the workers. Its result comes through the channel.
func submit(queue chan<- func(), number int) <-chan int {
	result := make(chan int, 1)
	queue <- func() { result <- number }
	return result
}

func burst(queue chan<- func(), jobs int) int {
	results := make([]<-chan int, jobs)
	for number := range results {
		results[number] = submit(queue, number)
	}
	sum := 0
	for _, result := range results {
		sum += <-result
	}
	return sum
}

func roundTrip(queue chan<- func(), jobs int) int {
	sum := 0
	for number := 0; number < jobs; number++ {
		sum += <-submit(queue, number)
	}
	return sum
}

// completed lets all jobs send to one channel, whose order is that of completion.
func completed(queue chan<- func(), jobs int) int {
	results := make(chan int, jobs)
	for number := 0; number < jobs; number++ {
		number := number
		queue <- func() { results <- number }
	}
	sum := 0
	for i := 0; i < jobs; i++ {
		sum += <-results
	}
	return sum
}

func main() {
	jobs, _ := strconv.Atoi(os.Args[1])
	workers, _ := strconv.Atoi(os.Args[2])
	queue := make(chan func(), jobs) // a channel of Go is always bounded
	for i := 0; i < workers; i++ {
		go func() {
			for job := range queue {
				job()
			}
		}()
	}
	figures := []float64{}
	for _, workload := range []func(chan<- func(), int) int{burst, roundTrip, completed} {
		workload(queue, jobs) // warms up
		start := time.Now()
		if workload(queue, jobs) != jobs*(jobs-1)/2 {
			panic("wrong sum")
		}
		figures = append(figures, float64(time.Since(start).Nanoseconds())/float64(jobs))
	}
	json.NewEncoder(os.Stdout).Encode(figures)
}
