// What the decoders of frames share: which pixels are wanted, and what may be wrong with a file.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <vector>

// Pixels first to end − 1 of a frame in the order of rows. The runs of a frame ascend and do not touch.
struct Run {
    std::int64_t first, end;
};
using Runs = std::vector<Run>;

// Not readable here: another format, another shape, or not there; whoever knows all formats says what it is.
struct Foreign {};

// The file is what it should be, but its data are not.
struct Damaged : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// The runs that a caller names, or one of all n pixels; out_of_range unless they are as runs must be.
inline Runs checked_runs(const std::optional<std::vector<std::array<std::int64_t, 2>>> &wanted, std::int64_t n) {
    if (!wanted) return {{0, n}};
    Runs runs;
    for (const auto &run : *wanted) {
        if (run[0] < (runs.empty() ? 0 : runs.back().end) || run[1] < run[0] || run[1] > n)
            throw std::out_of_range("runs must ascend within the image");
        runs.push_back({run[0], run[1]});
    }
    return runs;
}
