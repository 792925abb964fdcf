// Chunks of HDF5 files that bitshuffle and LZ4 have compressed, as Eiger detectors write them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "frame_format.h"

namespace bitshuffle {

// Memory that is kept from chunk to chunk.
using Block = std::vector<std::uint8_t>;

// Writes at least the pixels of the runs, of `width` bytes each, to their places in the image of n pixels. Only blocks
// of the chunk with pixels of a run are decompressed, of these only eights of pixels. Damaged unless the chunk's blocks are whole.
void decode(const std::uint8_t *chunk, std::size_t size, std::int64_t n, int width, const Runs &runs,
            std::uint8_t *image, Block &block);

}  // namespace bitshuffle
