// Byte-offset streams hold the differences of successive pixels: a signed byte each, or, after the escape −128, 16 bits,
// after −32768 in these 32, after −2³¹ in these 64. Where no pixel is wanted, differences are only added up.
#include "cbf.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "file_bytes.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define TDS2EL_AVX2 __attribute__((target("avx2")))
#endif

namespace py = pybind11;

namespace cbf {
namespace {

// Where in the stream we are: `p` to `end` are in memory, `left` bytes still in the file. Values wrap as those of 32-bit
// integers do.
struct Stream {
    const std::uint8_t *p, *end;
    std::int64_t left;
    FileBytes &file;
    std::uint32_t value = 0;

    // Brings a further block behind what is not decoded yet; false at the end of the stream.
    bool more() {
        if (left <= 0) return false;
        const std::int64_t before = end - p;
        if (!file.more(p, end)) throw Foreign{};
        end = p + std::min<std::int64_t>(end - p, before + left);
        left -= end - p - before;
        return true;
    }

    template <class T> bool take(std::int64_t &step) {
        T bits;
        if (end - p < static_cast<std::ptrdiff_t>(sizeof bits)) return false;
        std::memcpy(&bits, p, sizeof bits);
        p += sizeof bits;
        step = bits;
        return true;
    }

    // One pixel on; false, and nothing taken, at the end of what is in memory.
    bool next() {
        const std::uint8_t *const before = p;
        std::int64_t step;
        const bool there = take<std::int8_t>(step) &&
                           (step != INT8_MIN ||
                            (take<std::int16_t>(step) &&
                             (step != INT16_MIN ||
                              (take<std::int32_t>(step) && (step != INT32_MIN || take<std::int64_t>(step))))));
        if (!there) {
            p = before;
            return false;
        }
        value += static_cast<std::uint32_t>(step);
        return true;
    }
};

// Each follows n pixels and returns how many there were; `out`, if any, receives their values.
std::int64_t follow(Stream &s, std::int64_t n, std::int32_t *out) {
    for (std::int64_t i = 0; i < n; ++i) {
        if (!s.next()) return i;
        if (out) out[i] = static_cast<std::int32_t>(s.value);
    }
    return n;
}

#ifdef TDS2EL_AVX2
TDS2EL_AVX2 std::int64_t skip_avx2(Stream &s, std::int64_t n) {
    const __m256i escape = _mm256_set1_epi8(INT8_MIN);
    std::int64_t i = 0;
    while (n - i >= 32 && s.end - s.p >= 32) {
        // Sums of bytes are unsigned: 128 more in each.
        __m256i sum = _mm256_setzero_si256();
        std::int64_t blocks = 0;
        unsigned escapes = 0;
        for (; n - i >= 32 && s.end - s.p >= 32; i += 32, s.p += 32, ++blocks) {
            const __m256i steps = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(s.p));
            escapes = static_cast<unsigned>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(steps, escape)));
            if (escapes) break;
            sum = _mm256_add_epi64(sum, _mm256_sad_epu8(_mm256_xor_si256(steps, escape), _mm256_setzero_si256()));
        }
        alignas(32) std::uint64_t parts[4];
        _mm256_store_si256(reinterpret_cast<__m256i *>(parts), sum);
        s.value += static_cast<std::uint32_t>(parts[0] + parts[1] + parts[2] + parts[3]) -
                   static_cast<std::uint32_t>(128 * 32 * blocks);
        if (!escapes) break;
        const std::int64_t plain = __builtin_ctz(escapes) + 1;  // up to the escaped pixel
        const std::int64_t done = follow(s, plain, nullptr);
        i += done;
        if (done < plain) return i;
    }
    return i + follow(s, n - i, nullptr);
}

TDS2EL_AVX2 std::int64_t decode_avx2(Stream &s, std::int64_t n, std::int32_t *out) {
    const __m128i escape = _mm_set1_epi8(INT8_MIN);
    std::int64_t i = 0;
    while (n - i >= 16 && s.end - s.p >= 16) {
        const __m128i steps = _mm_loadu_si128(reinterpret_cast<const __m128i *>(s.p));
        const auto escapes = static_cast<unsigned>(_mm_movemask_epi8(_mm_cmpeq_epi8(steps, escape)));
        if (escapes) {
            const std::int64_t plain = __builtin_ctz(escapes) + 1;
            const std::int64_t done = follow(s, plain, out + i);
            i += done;
            if (done < plain) return i;
            continue;
        }
        // Sums of up to 16 steps fit 16 bits: within each half of 8, then the first half's total to the second.
        __m256i sums = _mm256_cvtepi8_epi16(steps);
        sums = _mm256_add_epi16(sums, _mm256_slli_si256(sums, 2));
        sums = _mm256_add_epi16(sums, _mm256_slli_si256(sums, 4));
        sums = _mm256_add_epi16(sums, _mm256_slli_si256(sums, 8));
        const __m128i low = _mm256_castsi256_si128(sums);
        const __m128i total = _mm_shuffle_epi8(low, _mm_set1_epi16(0x0F0E));
        const __m128i high = _mm_add_epi16(_mm256_extracti128_si256(sums, 1), total);
        const __m256i before = _mm256_set1_epi32(static_cast<int>(s.value));
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(out + i), _mm256_add_epi32(before, _mm256_cvtepi16_epi32(low)));
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(out + i + 8),
                            _mm256_add_epi32(before, _mm256_cvtepi16_epi32(high)));
        s.value += static_cast<std::uint32_t>(static_cast<std::int16_t>(_mm_extract_epi16(high, 7)));
        s.p += 16;
        i += 16;
    }
    return i + follow(s, n - i, out + i);
}

bool has_avx2() {
    static const bool there = __builtin_cpu_supports("avx2");
    return there;
}
#endif

// Follows n pixels of what is in memory, with vector instructions if they are wanted and there.
std::int64_t advance_in_block(Stream &s, std::int64_t n, std::int32_t *out, [[maybe_unused]] bool wide) {
#ifdef TDS2EL_AVX2
    if (wide && has_avx2()) return out ? decode_avx2(s, n, out) : skip_avx2(s, n);
#endif
    return follow(s, n, out);
}

std::int64_t advance(Stream &s, std::int64_t n, std::int32_t *out, bool wide) {
    std::int64_t done = 0;
    do {
        done += advance_in_block(s, n - done, out ? out + done : nullptr, wide);
    } while (done < n && s.more());
    return done;
}

std::optional<std::string_view> field(std::string_view text, std::string_view name) {
    const auto at = text.find(name);
    if (at == std::string_view::npos) return std::nullopt;
    text.remove_prefix(at + name.size());
    text = text.substr(0, text.find_first_of("\r\n"));
    const auto start = text.find_first_not_of(" \t\"");
    if (start == std::string_view::npos) return std::nullopt;
    return text.substr(start, text.find_last_not_of(" \t\"") + 1 - start);
}

std::int64_t number(std::string_view text, std::string_view name) {
    const auto value = field(text, name);
    std::int64_t n = 0;
    if (!value || value->size() > 12) throw Foreign{};
    for (const char c : *value) {
        if (c < '0' || c > '9') throw Foreign{};
        n = 10 * n + (c - '0');
    }
    return n;
}

}  // namespace

Section find_section(const FileBytes &file) {
    constexpr std::string_view section("--CIF-BINARY-FORMAT-SECTION--");
    const std::string_view first(reinterpret_cast<const char *>(file.data()), file.size());
    const auto at = first.find(starter);
    if (at == std::string_view::npos) throw Foreign{};
    const auto head = first.substr(0, at).rfind(section);
    if (head == std::string_view::npos) throw Foreign{};
    const std::string_view text = first.substr(head, at - head);
    if (field(text, "conversions=") != "x-CBF_BYTE_OFFSET" ||
        field(text, "X-Binary-Element-Type:") != "signed 32-bit integer" ||
        field(text, "X-Binary-Element-Byte-Order:").value_or("LITTLE_ENDIAN") != "LITTLE_ENDIAN")
        throw Foreign{};
    Section found{number(text, "X-Binary-Size-Second-Dimension:"), number(text, "X-Binary-Size-Fastest-Dimension:"),
                  at + starter.size(), number(text, "X-Binary-Size:")};
    const std::int64_t there = static_cast<std::int64_t>(file.length() - found.begin), bytes = found.bytes;
    // A pixel takes a byte at least; this also keeps the number of pixels from overflowing.
    if (bytes > there || found.rows < 1 || found.columns < 1 || found.columns > bytes ||
        found.rows > bytes / found.columns || found.rows * found.columns != number(text, "X-Binary-Number-of-Elements:"))
        throw Foreign{};
    return found;
}

void decode(const Section &section, FileBytes &file, const Runs &runs, std::int32_t *image, bool wide) {
    const std::int64_t there = std::min(section.bytes, static_cast<std::int64_t>(file.size() - section.begin));
    const std::uint8_t *const begin = file.data() + section.begin;
    Stream stream{begin, begin + there, section.bytes - there, file};
    const std::int64_t n = section.rows * section.columns;
    std::int64_t done = 0;
    const auto advance_to = [&](std::int64_t pixel, std::int32_t *out) {
        done += advance(stream, pixel - done, out, wide);
        if (done < pixel)
            throw Damaged("its image ends after " + std::to_string(done) + " of " + std::to_string(n) + " pixels");
    };
    for (const Run &run : runs) {
        advance_to(run.first, nullptr);
        advance_to(run.end, image + run.first);
    }
    advance_to(n, nullptr);
    if (stream.p != stream.end || stream.left)
        throw Damaged(std::to_string(stream.end - stream.p + stream.left) + " bytes follow the last of its " + std::to_string(n) +
                      " pixels");
}

}  // namespace cbf

void register_cbf(py::module_ &m) {
    m.def(
        "read_cbf",
        [](const std::string &path, const std::optional<std::vector<std::array<std::int64_t, 2>>> &wanted,
           bool wide) -> py::object {
            py::array_t<std::int32_t> image;
            static thread_local FileBytes file;
            try {
                const cbf::Section section = [&] {
                    py::gil_scoped_release release;
                    if (!file.read_first(path)) throw Foreign{};
                    return cbf::find_section(file);
                }();
                const std::int64_t n = section.rows * section.columns;
                const Runs runs = checked_runs(wanted, n);
                image = py::array_t<std::int32_t>({section.rows, section.columns});
                std::int32_t *pixels = image.mutable_data();
                if (wanted) std::fill_n(pixels, n, 0);
                py::gil_scoped_release release;
                cbf::decode(section, file, runs, pixels, wide);
                file.close();
            } catch (const Foreign &) {
                return py::none();
            } catch (const Damaged &error) {
                throw py::value_error(error.what());
            }
            return image;
        },
        py::arg("path"), py::arg("runs") = py::none(), py::arg("wide") = true);
}
