// CBF with byte-offset compression, as Pilatus detectors write it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "frame_format.h"

namespace cbf {

struct Section {
    std::int64_t rows, columns;
    const std::uint8_t *begin, *end;  // of the compressed image
};

// The binary section of 32-bit integers; Foreign if the file has none or not all of it.
Section find_section(const std::uint8_t *data, std::size_t size);

// Writes the pixels of the runs, and no others, to their places in the image. The stream is followed to its end: Damaged
// unless it holds exactly the pixels of the section. `wide`: with vector instructions, where the machine has them.
void decode(const Section &section, const Runs &runs, std::int32_t *image, bool wide = true);

}  // namespace cbf
