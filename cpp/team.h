// Threads that stay, for many short parallel loops: schedulers take milliseconds to spread new threads over the cores.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

class Team {
  public:
    explicit Team(int threads) {
        try {
            for (int t = 1; t < threads; ++t) others_.emplace_back([this, t] { serve(t); });
        } catch (const std::system_error &) {  // the system gives no more threads: those there do the work
        }
    }
    Team(const Team &) = delete;
    Team &operator=(const Team &) = delete;
    ~Team() {
        announce({});
        for (std::thread &other : others_) other.join();
    }

    // Calls task(i, thread) for i = first, first + stride, … below end, and returns when all are done. A task must not
    // throw; one caller at a time.
    template <class Task> void loop(std::int64_t first, std::int64_t stride, std::int64_t end, const Task &task) {
        std::atomic<std::int64_t> next{first};
        const auto work = [&](int thread) {
            for (std::int64_t i; (i = next.fetch_add(stride)) < end;) task(i, thread);
        };
        busy_ = static_cast<int>(others_.size());
        announce(std::ref(work));
        work(0);
        wait(done_, [this] { return busy_ == 0; });
    }

  private:
    // Loops follow each other closely, so look for the next one a while before going to sleep.
    template <class Condition> void wait(std::condition_variable &signal, const Condition &condition) {
        for (int i = 0; i < 200; ++i) {
            if (condition()) return;
            std::this_thread::yield();
        }
        std::unique_lock lock(mutex_);
        signal.wait(lock, condition);
    }

    void announce(std::function<void(int)> job) {
        {
            const std::lock_guard lock(mutex_);
            job_ = std::move(job);
            ++round_;
        }
        start_.notify_all();
    }

    void serve(int thread) {
        for (std::uint64_t seen = 0;;) {
            wait(start_, [&] { return round_ != seen; });
            seen = round_;
            if (!job_) return;
            job_(thread);
            if (--busy_ == 0) {
                const std::lock_guard lock(mutex_);
                done_.notify_one();
            }
        }
    }

    std::vector<std::thread> others_;
    std::mutex mutex_;
    std::condition_variable start_, done_;
    std::function<void(int)> job_;
    std::atomic<std::uint64_t> round_{0};
    std::atomic<int> busy_{0};
};
