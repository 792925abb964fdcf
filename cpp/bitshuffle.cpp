// A chunk is the size of its data (8 bytes, big-endian), the size of a block (4), and the blocks: compressed size (4) and
// LZ4 sequences. A block has a multiple of 8 pixels, whose bits are sorted: first bit 0 of all, then bit 1, … Fewer
// than 8 pixels at the end follow as they are.
#include "bitshuffle.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>

namespace py = pybind11;

namespace bitshuffle {
namespace {

std::uint64_t big_endian(const std::uint8_t *p, int bytes) {
    std::uint64_t n = 0;
    for (int i = 0; i < bytes; ++i) n = n << 8 | p[i];
    return n;
}

// A length of LZ4: 15 in its 4 bits says that bytes follow, all but the last 255. False at the end of the data.
bool lengthen(std::size_t &length, const std::uint8_t *&p, const std::uint8_t *end) {
    if (length != 15) return true;
    std::uint8_t more;
    do {
        if (p == end) return false;
        more = *p++;
        length += more;
    } while (more == 255);
    return true;
}

// LZ4's block format: literals, then a copy of what came `offset` bytes before; the last sequence has literals only.
// Returns whether the data fill `out` exactly.
bool decompress(const std::uint8_t *p, const std::uint8_t *end, std::uint8_t *out, std::size_t size) {
    std::uint8_t *const first = out, *const last = out + size;
    while (p < end) {
        const std::uint8_t token = *p++;
        std::size_t literals = token >> 4, match = token & 15;
        if (!lengthen(literals, p, end)) return false;
        if (literals > static_cast<std::size_t>(end - p) || literals > static_cast<std::size_t>(last - out)) return false;
        std::memcpy(out, p, literals);
        out += literals;
        p += literals;
        if (p == end) return out == last;
        if (end - p < 2) return false;
        const std::size_t offset = p[0] | static_cast<std::size_t>(p[1]) << 8;
        p += 2;
        if (!lengthen(match, p, end)) return false;
        match += 4;
        if (!offset || offset > static_cast<std::size_t>(out - first) || match > static_cast<std::size_t>(last - out))
            return false;
        // What is copied may reach into the copy: then it repeats, and what is there doubles with every step.
        for (std::size_t done = 0; done < match;) {
            const std::size_t step = std::min(match - done, offset + done);
            std::memcpy(out + done, out - offset, step);
            done += step;
        }
        out += match;
    }
    return false;
}

// The 8×8 bits of a number, transposed.
std::uint64_t transposed(std::uint64_t x) {
    std::uint64_t t = (x ^ (x >> 7)) & 0x00AA00AA00AA00AAULL;
    x ^= t ^ (t << 7);
    t = (x ^ (x >> 14)) & 0x0000CCCC0000CCCCULL;
    x ^= t ^ (t << 14);
    t = (x ^ (x >> 28)) & 0x00000000F0F0F0F0ULL;
    return x ^ t ^ (t << 28);
}

// Puts the bits of the block's pixels first to end − 1, both multiples of 8, together.
template <int width>
void unshuffle(const std::uint8_t *block, std::int64_t pixels, std::int64_t first, std::int64_t end, std::uint8_t *out) {
    const std::int64_t row = pixels / 8;  // bytes with one bit of all pixels
    for (std::int64_t i = first / 8; i < end / 8; ++i, out += 8 * width) {
        for (int byte = 0; byte < width; ++byte) {
            std::uint64_t bits = 0;
            for (int bit = 0; bit < 8; ++bit)
                bits |= static_cast<std::uint64_t>(block[(8 * byte + bit) * row + i]) << (8 * bit);
            bits = transposed(bits);
            for (int pixel = 0; pixel < 8; ++pixel) out[pixel * width + byte] = static_cast<std::uint8_t>(bits >> (8 * pixel));
        }
    }
}

void unshuffle(int width, const std::uint8_t *block, std::int64_t pixels, std::int64_t first, std::int64_t end,
               std::uint8_t *out) {
    switch (width) {
        case 1: return unshuffle<1>(block, pixels, first, end, out);
        case 2: return unshuffle<2>(block, pixels, first, end, out);
        case 4: return unshuffle<4>(block, pixels, first, end, out);
        default: return unshuffle<8>(block, pixels, first, end, out);
    }
}

}  // namespace

void decode(const std::uint8_t *chunk, std::size_t size, std::int64_t n, int width, const Runs &runs,
            std::uint8_t *image, Block &block) {
    const std::uint8_t *p = chunk, *const end = chunk + size;
    const Damaged cut_off("its compressed image is cut off or damaged");
    if (size < 12 || big_endian(p, 8) != static_cast<std::uint64_t>(n) * static_cast<std::uint64_t>(width)) throw cut_off;
    const auto in_block = static_cast<std::int64_t>(big_endian(p + 8, 4)) / width;
    p += 12;
    if (in_block < 8 || in_block % 8 || in_block * width > (1 << 26)) throw cut_off;
    block.resize(static_cast<std::size_t>(in_block * width));
    auto run = runs.begin();
    const std::int64_t whole = n - n % 8;
    for (std::int64_t first = 0; first < whole; first += in_block) {
        const std::int64_t pixels = std::min(in_block, whole - first);
        if (end - p < 4) throw cut_off;
        const auto packed = static_cast<std::int64_t>(big_endian(p, 4));
        p += 4;
        if (packed > end - p) throw cut_off;
        while (run != runs.end() && run->end <= first) ++run;
        if (run != runs.end() && run->first < first + pixels) {
            if (!decompress(p, p + packed, block.data(), static_cast<std::size_t>(pixels * width))) throw cut_off;
            for (auto r = run; r != runs.end() && r->first < first + pixels; ++r) {
                const std::int64_t a = std::max<std::int64_t>(r->first - first, 0) / 8 * 8;
                const std::int64_t b = std::min((r->end - first + 7) / 8 * 8, pixels);
                unshuffle(width, block.data(), pixels, a, b, image + (first + a) * width);
            }
        }
        p += packed;
    }
    if (end - p != (n - whole) * width) throw cut_off;
    std::memcpy(image + whole * width, p, static_cast<std::size_t>((n - whole) * width));
}

}  // namespace bitshuffle

void register_bitshuffle(py::module_ &m) {
    m.def(
        "unpack_bitshuffle",
        [](const py::bytes &chunk, std::int64_t pixels, int width,
           const std::optional<std::vector<std::array<std::int64_t, 2>>> &wanted) {
            if (pixels < 0 || (width != 1 && width != 2 && width != 4 && width != 8))
                throw py::value_error("pixels of 1, 2, 4 or 8 bytes are needed");
            const Runs runs = checked_runs(wanted, pixels);
            const auto packed = static_cast<std::string_view>(chunk);
            std::string image(static_cast<std::size_t>(pixels * width), '\0');
            bitshuffle::Block block;
            try {
                bitshuffle::decode(reinterpret_cast<const std::uint8_t *>(packed.data()), packed.size(), pixels, width,
                                   runs, reinterpret_cast<std::uint8_t *>(image.data()), block);
            } catch (const Damaged &error) {
                throw py::value_error(error.what());
            }
            return py::bytes(image);
        },
        py::arg("chunk"), py::arg("pixels"), py::arg("width"), py::arg("runs") = py::none());
}
