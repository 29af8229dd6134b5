import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorCompletionService;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;

/**
 * Measures Java's ThreadPoolExecutor in burst, round trip and as_completed.
 *
 * Arguments: the number of jobs and the number of workers.
 * Prints the nanoseconds per job of each as a JSON list.
 * Runs each workload for half a second before it is measured, so that the compiler has done its work.
 */
class ThreadPool {
    interface Workload {
        long run() throws Exception;
    }

    static int jobs;
    static ExecutorService pool;

    static long burst() {
        List<CompletableFuture<Long>> futures = new ArrayList<>(jobs);
        for (long i = 0; i < jobs; i++) {
            long number = i;
            futures.add(CompletableFuture.supplyAsync(() -> number, pool));
        }
        long sum = 0;
        for (CompletableFuture<Long> future : futures) {
            sum += future.join();
        }
        return sum;
    }

    static long roundTrip() {
        long sum = 0;
        for (long i = 0; i < jobs; i++) {
            long number = i;
            sum += CompletableFuture.supplyAsync(() -> number, pool).join();
        }
        return sum;
    }

    static long completed() throws Exception {
        ExecutorCompletionService<Long> service = new ExecutorCompletionService<>(pool);
        for (long i = 0; i < jobs; i++) {
            long number = i;
            service.submit(() -> number);
        }
        long sum = 0;
        for (int i = 0; i < jobs; i++) {
            sum += service.take().get();
        }
        return sum;
    }

    static double measure(Workload workload) throws Exception {
        long warm = System.nanoTime() + 500_000_000L;
        long start;
        do {
            start = System.nanoTime();
            if (workload.run() != (long) jobs * (jobs - 1) / 2) {
                throw new IllegalStateException("wrong sum");
            }
        } while (start < warm);
        return (double) (System.nanoTime() - start) / jobs;
    }

    public static void main(String[] arguments) throws Exception {
        jobs = Integer.parseInt(arguments[0]);
        int workers = Integer.parseInt(arguments[1]);
        ThreadPoolExecutor executor =
            new ThreadPoolExecutor(workers, workers, 0, TimeUnit.SECONDS, new LinkedBlockingQueue<>());
        executor.prestartAllCoreThreads();
        pool = executor;
        Workload[] workloads = {ThreadPool::burst, ThreadPool::roundTrip, ThreadPool::completed};
        List<Double> figures = new ArrayList<>();
        for (Workload workload : workloads) {
            figures.add(measure(workload));
        }
        pool.shutdown();
        System.out.println(figures);
    }
}
