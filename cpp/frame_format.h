// What the decoders of frames share: which pixels are wanted, and what may be wrong with a file.
#pragma once

#include <cstdint>
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
