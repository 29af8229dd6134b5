// Measures a C++ pool whose jobs return a std::future in burst and round trip.
//
// Arguments: the number of jobs and the number of workers.
// Runs each workload once before it is measured.
// Prints the nanoseconds per job of each as a JSON list, and null for as_completed: a std::future
// cannot tell that it is ready without a thread that waits for it.
//
// With -DBS_THREAD_POOL it measures BS::thread_pool, otherwise the usual hand-written pool.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <vector>

#ifdef BS_THREAD_POOL
#include <BS_thread_pool.hpp>

struct Pool {
    BS::thread_pool<> pool;

    explicit Pool(unsigned workers) : pool(workers) {}

    template <typename Job>
    auto submit(Job job) {
        return pool.submit_task(std::move(job));
    }
};
#else
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <queue>
#include <thread>

class Pool {
    std::queue<std::function<void()>> queue;
    std::mutex mutex;
    std::condition_variable changed;
    bool closed = false;
    std::vector<std::thread> workers;

    void work() {
        std::unique_lock lock(mutex);
        for (;;) {
            changed.wait(lock, [this] { return closed || !queue.empty(); });
            if (queue.empty()) {
                return;
            }
            auto job = std::move(queue.front());
            queue.pop();
            lock.unlock();
            job();
            job = nullptr;
            lock.lock();
        }
    }

public:
    explicit Pool(unsigned count) {
        for (unsigned i = 0; i < count; i++) {
            workers.emplace_back([this] { work(); });
        }
    }

    ~Pool() {
        {
            std::lock_guard lock(mutex);
            closed = true;
        }
        changed.notify_all();
        for (auto &worker : workers) {
            worker.join();
        }
    }

    template <typename Job>
    auto submit(Job job) {
        using Result = decltype(job());
        // A std::function must be copyable, and a std::packaged_task is not.
        auto task = std::make_shared<std::packaged_task<Result()>>(std::move(job));
        auto result = task->get_future();
        {
            std::lock_guard lock(mutex);
            queue.emplace([task = std::move(task)] { (*task)(); });
        }
        changed.notify_one();
        return result;
    }
};
#endif

static long burst(Pool &pool, long jobs) {
    std::vector<std::future<long>> results;
    results.reserve(jobs);
    for (long i = 0; i < jobs; i++) {
        results.push_back(pool.submit([i] { return i; }));
    }
    long sum = 0;
    for (auto &result : results) {
        sum += result.get();
    }
    return sum;
}

static long round_trip(Pool &pool, long jobs) {
    long sum = 0;
    for (long i = 0; i < jobs; i++) {
        sum += pool.submit([i] { return i; }).get();
    }
    return sum;
}

static double measure(long (*workload)(Pool &, long), Pool &pool, long jobs) {
    workload(pool, jobs); // warms up
    auto start = std::chrono::steady_clock::now();
    if (workload(pool, jobs) != jobs * (jobs - 1) / 2) {
        std::abort();
    }
    std::chrono::duration<double, std::nano> elapsed = std::chrono::steady_clock::now() - start;
    return elapsed.count() / jobs;
}

int main(int, char **arguments) {
    long jobs = std::atol(arguments[1]);
    Pool pool(std::atoi(arguments[2]));
    double first = measure(burst, pool, jobs);
    double second = measure(round_trip, pool, jobs);
    std::printf("[%f, %f, null]\n", first, second);
}
