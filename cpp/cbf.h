// CBF with byte-offset compression, as Pilatus detectors write it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "file_bytes.h"
#include "frame_format.h"

namespace cbf {

// Marks the start of the binary section.
constexpr std::string_view starter("\x0c\x1a\x04\xd5", 4);

struct Section {
    std::int64_t rows, columns;
    std::size_t begin;   // of the compressed image in the file
    std::int64_t bytes;  // that it takes
};

// The binary section of 32-bit integers, of a file whose first bytes have been read; Foreign if it has none or not all.
Section find_section(const FileBytes &file);

// Writes the pixels of the runs, and no others, to their places in the image. The stream is followed to its end, block
// by block: Damaged unless it holds exactly the pixels of the section. `wide`: with vector instructions, where the machine
// has them.
void decode(const Section &section, FileBytes &file, const Runs &runs, std::int32_t *image, bool wide = true);

}  // namespace cbf
