// The beginnings of many files: what the headers of CBFs say, and the first bytes of what is no CBF.
#include <locale.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "cbf.h"
#include "file_bytes.h"
#include "team.h"

namespace py = pybind11;

namespace {

constexpr double none = std::numeric_limits<double>::quiet_NaN();

bool is_digit(char c) { return '0' <= c && c <= '9'; }

// The number at the beginning of a text, with a decimal point whatever the locale; NaN if there is none.
double number_at(std::string_view text) {
    std::size_t n = 0;
    const auto sign = [&] { n += n < text.size() && (text[n] == '-' || text[n] == '+'); };
    const auto digits = [&] {
        const std::size_t before = n;
        while (n < text.size() && is_digit(text[n])) ++n;
        return n > before;
    };
    sign();
    if (!digits()) return none;
    if (n < text.size() && text[n] == '.') {
        ++n;
        digits();
    }
    if (n < text.size() && (text[n] == 'e' || text[n] == 'E')) {
        const std::size_t mantissa = n++;
        sign();
        if (!digits()) n = mantissa;
    }
    static const locale_t plain = newlocale(LC_ALL_MASK, "C", nullptr);
    return strtod_l(std::string(text.substr(0, n)).c_str(), nullptr, plain);
}

// The number behind the first mention of a key that is followed by one; NaN if there is none.
double number_of(std::string_view text, std::string_view key) {
    for (auto at = text.find(key); at != std::string_view::npos; at = text.find(key, at + 1)) {
        const std::string_view rest = text.substr(at + key.size());
        const auto begin = rest.find_first_not_of(" \t\n\r\f\v=:");
        if (begin == 0 || begin == std::string_view::npos) continue;
        const double number = number_at(rest.substr(begin));
        if (!std::isnan(number)) return number;
    }
    return none;
}

// Start angle, increment and count cutoff.
using Numbers = std::array<double, 3>;

Numbers numbers_of(std::string_view text) {
    return {number_of(text, "Start_angle"), number_of(text, "Angle_increment"), number_of(text, "Count_cutoff")};
}

struct Head {
    Numbers numbers{none, none, none};
    std::string bytes;
    std::uint64_t size = 0;
    bool read = false, whole_cbf = false;
};

// The first bytes of a file; of a CBF its header, up to the marker of its binary section if that is found.
Head head_of(const std::string &path, FileBytes &file) {
    constexpr std::uint64_t step = 1 << 14, limit = 1 << 20;
    Head head;
    if (!file.measure(path, head.size)) return head;
    for (std::uint64_t wanted = step;; wanted *= 4) {
        const std::uint64_t n = std::min(wanted, head.size);
        if (!file.read(path, 0, n)) return head;
        std::string_view text(reinterpret_cast<const char *>(file.data()), n);
        const bool cbf = text.substr(0, 6) == "###CBF";
        const auto at = text.find(cbf::starter);
        if (at == std::string_view::npos && cbf && n < head.size && wanted < limit) continue;
        head.read = true;
        if (at != std::string_view::npos) text = text.substr(0, at);
        head.numbers = numbers_of(text);
        const double bytes = number_of(text, "X-Binary-Size:");
        const std::uint64_t begin = text.size() + cbf::starter.size();
        head.whole_cbf = cbf && at != std::string_view::npos && bytes <= static_cast<double>(head.size - begin);
        if (!head.whole_cbf) head.bytes.assign(text.data(), std::min(n, begin));
        return head;
    }
}

py::tuple file_heads(const std::vector<std::string> &paths, int threads) {
    std::vector<Head> heads(paths.size());
    {
        py::gil_scoped_release release;
        std::vector<FileBytes> files(static_cast<std::size_t>(std::max(threads, 1)));
        Team(threads).loop(0, 1, static_cast<std::int64_t>(paths.size()), [&](std::int64_t i, int thread) {
            heads[static_cast<std::size_t>(i)] = head_of(paths[static_cast<std::size_t>(i)], files[static_cast<std::size_t>(thread)]);
        });
    }
    py::array_t<double> numbers({static_cast<py::ssize_t>(heads.size()), py::ssize_t{3}});
    py::dict others;
    for (std::size_t i = 0; i < heads.size(); ++i) {
        const Head &head = heads[i];
        std::copy(head.numbers.begin(), head.numbers.end(), numbers.mutable_data() + 3 * i);
        if (!head.read)
            others[py::int_(i)] = py::none();
        else if (!head.whole_cbf)
            others[py::int_(i)] = py::make_tuple(py::bytes(head.bytes), head.size);
    }
    return py::make_tuple(numbers, others);
}

}  // namespace

void register_headers(py::module_ &m) {
    m.def(
        "header_numbers", [](const py::bytes &text) { return numbers_of(static_cast<std::string_view>(text)); },
        py::arg("text"));
    m.def("file_heads", &file_heads, py::arg("paths"), py::arg("threads"));
}
