// Bright regions of frames: pixels that stand out of their surroundings, joined with their neighbours in a frame. A block of
// frames at a time, each by whichever thread is free; what a frame gives depends on that frame alone.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <string>

#include "frame_source.h"
#include "team.h"
#include "wide.h"

namespace py = pybind11;

namespace {

template <class T> using dense = py::array_t<T, py::array::c_style>;

// What is summed over the pixels of a region, in the order of `Region`'s columns.
enum Sum { pixels, net, net_r, net_c, net_rr, net_cc, net_row, net_column, raw, raw_r, raw_c, raw_rr, raw_cc, base,
           base_variance, largest, saturated, cut, n_sums };
using Region = std::array<double, n_sums>;

// Pixels first to end − 1 of a row that stand out, and which region of their frame they belong to.
struct PixelRun {
    std::int32_t row, first, end, region;
};

struct Found {
    std::vector<Region> regions;
    std::vector<PixelRun> runs;
    std::int64_t n_regions = 0;
    double background = 0, used = 0;  // mean counts over the frame and pixels that it is taken from
};

struct Criterion {
    double threshold;  // counts; NaN: `sigma` decides
    double sigma;      // of the noise of the background
    double saturated_above, saturated_from;
    std::int64_t half;  // of the window of the background, without the pixel itself
    std::int64_t most;  // regions of a frame, beyond which they are only counted
};

// Surroundings of fewer pixels say less than the whole frame.
constexpr float fewest = 10;
// What exceeds the background by so many of its standard deviations is not part of it.
constexpr float clip = 3;
// Each time the background is taken without what stood out of the last one: with a strong peak it falls by the ratio of
// window to peak, so that three times are enough.
constexpr int passes = 3;

// Sums over columns of a window: a row enters or leaves. A pixel without data, NaN, is never used.
TDS2EL_WIDE void enter(const float *__restrict image, const std::uint8_t *__restrict used, std::int64_t n,
                       double *__restrict sum, std::int32_t *__restrict number) {
    for (std::int64_t c = 0; c < n; ++c) {
        sum[c] += static_cast<double>(used[c] ? image[c] : 0.0f);
        number[c] += used[c];
    }
}

TDS2EL_WIDE void leave(const float *__restrict image, const std::uint8_t *__restrict used, std::int64_t n,
                       double *__restrict sum, std::int32_t *__restrict number) {
    for (std::int64_t c = 0; c < n; ++c) {
        sum[c] -= static_cast<double>(used[c] ? image[c] : 0.0f);
        number[c] -= used[c];
    }
}

// Mean and number of the pixels used in the windows of a row's pixels, from running sums that begin with half + 1 zeros and
// end with half repeats of the last.
TDS2EL_WIDE void means(const double *__restrict sums, const std::int32_t *__restrict numbers, std::int64_t n,
                       std::int64_t window, float other_mean, float other_number, float *__restrict mean,
                       float *__restrict number) {
    for (std::int64_t c = 0; c < n; ++c) {
        const auto pixels = static_cast<float>(numbers[c + window] - numbers[c]);
        const auto total = static_cast<float>(sums[c + window] - sums[c]);
        const bool enough = pixels >= fewest;
        mean[c] = enough ? total / pixels : other_mean;
        number[c] = enough ? pixels : other_number;
    }
}

// Poisson noise, of one count at least: where hardly anything is counted, a count or two are no peak.
TDS2EL_WIDE void outstanding(const float *__restrict image, const float *__restrict mean, std::int64_t n, float sigma,
                             std::uint8_t *__restrict out) {
    for (std::int64_t c = 0; c < n; ++c) {
        const float excess = image[c] - mean[c], variance = mean[c] > 1.0f ? mean[c] : 1.0f;
        out[c] = (excess > 0.0f) & (excess * excess > sigma * sigma * variance);
    }
}

TDS2EL_WIDE void still_used(const float *__restrict image, const float *__restrict mean, std::int64_t n,
                            std::uint8_t *__restrict out) {
    for (std::int64_t c = 0; c < n; ++c) {
        const float excess = image[c] - mean[c], variance = mean[c] > 1.0f ? mean[c] : 1.0f;
        out[c] = (excess <= 0.0f) | (excess * excess <= clip * clip * variance);  // false for NaN
    }
}

// What one thread keeps from frame to frame.
class Searcher {
  public:
    FrameReader reader;

    template <class T> void search(const T *pixels, const bool *mask, Shape shape, const Criterion &criterion, Found &found) {
        shape_ = shape;
        take(pixels, mask);
        find_background(criterion.half);
        find_runs(criterion);
        found.background = frame_mean_;
        found.used = frame_number_;
        join_runs();
        sum_regions(criterion, found);
    }

  private:
    struct PixelValue {
        float counts, mean, number;
    };
    struct OnLine {
        std::int32_t region, line;
        double net;
    };

    // The frame, with NaN where there are no data.
    template <class T> void take(const T *__restrict pixels, const bool *__restrict mask) {
        const std::int64_t n = shape_.rows * shape_.columns;
        image_.resize(static_cast<std::size_t>(n));
        used_.resize(static_cast<std::size_t>(n));
        next_.resize(static_cast<std::size_t>(n));
        float *const __restrict image = image_.data();
        std::uint8_t *const __restrict used = used_.data();
        for (std::int64_t i = 0; i < n; ++i) {
            const auto counts = static_cast<float>(pixels[i]);
            const bool good = mask[i] & (counts >= 0.0f);
            image[i] = good ? counts : std::numeric_limits<float>::quiet_NaN();
            used[i] = good;
        }
    }

    // Calls use(row, mean, number) for every row in turn with the background of its pixels.
    template <class Use> void each_row(std::int64_t half, const Use &use) {
        const std::int64_t rows = shape_.rows, n = shape_.columns, window = 2 * half + 1;
        const auto width = static_cast<std::size_t>(n);
        column_sum_.assign(width, 0.0);
        column_number_.assign(width, 0);
        running_sum_.assign(width + static_cast<std::size_t>(window), 0.0);
        running_number_.assign(width + static_cast<std::size_t>(window), 0);
        mean_.resize(width);
        number_.resize(width);
        double all = 0, all_numbers = 0;
        const float other_mean = frame_mean_, other_number = frame_number_;
        for (std::int64_t r = 0; r < std::min(half, rows); ++r)
            enter(row(image_, r), row(used_, r), n, column_sum_.data(), column_number_.data());
        for (std::int64_t r = 0; r < rows; ++r) {
            if (r + half < rows)
                enter(row(image_, r + half), row(used_, r + half), n, column_sum_.data(), column_number_.data());
            if (r > half)
                leave(row(image_, r - half - 1), row(used_, r - half - 1), n, column_sum_.data(), column_number_.data());
            double sum = 0;
            std::int32_t number = 0;
            double *const sums = running_sum_.data() + half + 1;
            std::int32_t *const numbers = running_number_.data() + half + 1;
            for (std::int64_t c = 0; c < n; ++c) {
                sums[c] = sum += column_sum_[static_cast<std::size_t>(c)];
                numbers[c] = number += column_number_[static_cast<std::size_t>(c)];
            }
            std::fill(sums + n, sums + n + half, sum);
            std::fill(numbers + n, numbers + n + half, number);
            all += sum;
            all_numbers += number;
            means(running_sum_.data(), running_number_.data(), n, window, other_mean, other_number, mean_.data(),
                  number_.data());
            use(r, mean_.data(), number_.data());
        }
        // Every pixel is in as many of these sums as the window has rows, but near the edges.
        frame_mean_ = static_cast<float>(all_numbers > 0 ? all / all_numbers : 0);
        frame_number_ = static_cast<float>(std::max(all_numbers / static_cast<double>(window), 1.0));
    }

    void find_background(std::int64_t half) {
        frame_mean_ = 0;
        frame_number_ = 1;
        for (int pass = 0; pass < passes; ++pass) {
            each_row(half, [&](std::int64_t r, const float *mean, const float *) {
                still_used(row(image_, r), mean, shape_.columns, row(next_, r));
            });
            used_.swap(next_);
        }
    }

    void find_runs(const Criterion &criterion) {
        const std::int64_t n = shape_.columns;
        const bool fixed = !std::isnan(criterion.threshold);
        over_.resize(static_cast<std::size_t>(n) + 1);
        runs_.clear();
        first_value_.clear();
        values_.clear();
        each_row(criterion.half, [&](std::int64_t r, const float *mean, const float *number) {
            const float *image = row(image_, r);
            outstanding(image, mean, n, fixed ? 0.0f : static_cast<float>(criterion.sigma), over_.data());
            if (fixed)
                for (std::int64_t c = 0; c < n; ++c) over_[static_cast<std::size_t>(c)] &= image[c] > criterion.threshold;
            over_[static_cast<std::size_t>(n)] = 1;  // where the search for the next one ends
            const std::uint8_t *const begin = over_.data(), *const end = begin + n;
            for (const std::uint8_t *p = begin;;) {
                p = static_cast<const std::uint8_t *>(std::memchr(p, 1, static_cast<std::size_t>(end - p) + 1));
                if (p == end) break;
                const std::uint8_t *last = p;
                first_value_.push_back(values_.size());
                for (; last != end && *last; ++last) values_.push_back({image[last - begin], mean[last - begin], number[last - begin]});
                runs_.push_back({static_cast<std::int32_t>(r), static_cast<std::int32_t>(p - begin),
                                 static_cast<std::int32_t>(last - begin), 0});
                p = last;
            }
        });
    }

    // Numbers the regions in the order of their first pixels: runs of adjacent rows that touch, also at corners, are of one.
    void join_runs() {
        parent_.resize(runs_.size());
        std::size_t above = 0;  // first run of the row before that may touch
        for (std::size_t i = 0; i < runs_.size(); ++i) {
            parent_[i] = i;
            const PixelRun &run = runs_[i];
            while (above < i && (runs_[above].row < run.row - 1 || (runs_[above].row == run.row - 1 && runs_[above].end < run.first)))
                ++above;
            for (std::size_t j = above; j < i && runs_[j].row == run.row - 1 && runs_[j].first <= run.end; ++j) {
                const std::size_t a = root(i), b = root(j);
                parent_[std::max(a, b)] = std::min(a, b);
            }
        }
        n_regions_ = 0;
        for (std::size_t i = 0; i < runs_.size(); ++i)
            runs_[i].region = root(i) == i ? static_cast<std::int32_t>(n_regions_++) : runs_[root(i)].region;
    }

    std::size_t root(std::size_t i) {
        while (parent_[i] != i) i = parent_[i] = parent_[parent_[i]];
        return i;
    }

    void sum_regions(const Criterion &criterion, Found &found) {
        found.n_regions = n_regions_;
        found.regions.clear();
        found.runs.clear();
        if (n_regions_ > criterion.most) return;
        found.regions.assign(static_cast<std::size_t>(n_regions_), Region{});
        found.runs = runs_;
        for (std::size_t i = 0; i < runs_.size(); ++i) {
            const PixelRun &run = runs_[i];
            Region &sums = found.regions[static_cast<std::size_t>(run.region)];
            const PixelValue *value = values_.data() + first_value_[i];
            const double r = run.row;
            for (std::int32_t column = run.first; column < run.end; ++column, ++value) {
                const double c = column, counts = value->counts, mean = value->mean, above = counts - mean;
                sums[pixels] += 1;
                sums[net] += above;
                sums[net_r] += above * r;
                sums[net_c] += above * c;
                sums[net_rr] += above * r * r;
                sums[net_cc] += above * c * c;
                sums[raw] += counts;
                sums[raw_r] += counts * r;
                sums[raw_c] += counts * c;
                sums[raw_rr] += counts * r * r;
                sums[raw_cc] += counts * c * c;
                sums[base] += mean;
                // The pixels share their surroundings, and so the error of these: standard deviations add.
                sums[base_variance] += std::sqrt(mean / value->number);
                sums[largest] = std::max(sums[largest], counts);
                if (counts > criterion.saturated_above || counts >= criterion.saturated_from) sums[saturated] = 1;
            }
            if (touches_nothing(run)) sums[cut] = 1;
        }
        for (Region &sums : found.regions) sums[base_variance] *= sums[base_variance];
        largest_line(found, net_row, [](const PixelRun &run, std::int32_t) { return run.row; });
        largest_line(found, net_column, [](const PixelRun &, std::int32_t column) { return column; });
    }

    // The largest of a region's sums over lines, rows or columns.
    template <class Line> void largest_line(Found &found, Sum which, const Line &line) {
        lines_.clear();
        for (std::size_t i = 0; i < runs_.size(); ++i) {
            const PixelValue *value = values_.data() + first_value_[i];
            for (std::int32_t column = runs_[i].first; column < runs_[i].end; ++column, ++value)
                lines_.push_back({runs_[i].region, line(runs_[i], column), static_cast<double>(value->counts) - value->mean});
        }
        std::stable_sort(lines_.begin(), lines_.end(), [](const OnLine &a, const OnLine &b) {
            return a.region != b.region ? a.region < b.region : a.line < b.line;
        });
        for (std::size_t i = 0; i < lines_.size();) {
            const OnLine &first = lines_[i];
            double sum = 0;
            for (; i < lines_.size() && lines_[i].region == first.region && lines_[i].line == first.line; ++i) sum += lines_[i].net;
            double &most = found.regions[static_cast<std::size_t>(first.region)][which];
            most = std::max(most, sum);
        }
    }

    // Whether a neighbour of the run is beyond the frame or has no data.
    bool touches_nothing(const PixelRun &run) const {
        if (run.row == 0 || run.row == shape_.rows - 1 || run.first == 0 || run.end == shape_.columns) return true;
        for (std::int64_t r = run.row - 1; r <= run.row + 1; ++r)
            for (std::int64_t c = run.first - 1; c <= run.end; ++c)
                if (std::isnan(image_[static_cast<std::size_t>(r * shape_.columns + c)])) return true;
        return false;
    }

    template <class T> T *row(std::vector<T> &of, std::int64_t r) const { return of.data() + r * shape_.columns; }

    Shape shape_{};
    std::vector<float> image_;
    std::vector<std::uint8_t> used_, next_, over_;
    std::vector<double> column_sum_, running_sum_;
    std::vector<std::int32_t> column_number_, running_number_;
    std::vector<float> mean_, number_;
    float frame_mean_ = 0, frame_number_ = 1;  // of the last pass
    std::vector<PixelRun> runs_;
    std::vector<std::size_t> first_value_, parent_;
    std::vector<PixelValue> values_;
    std::vector<OnLine> lines_;
    std::int64_t n_regions_ = 0;
};

class PeakFinder {
  public:
    PeakFinder(const dense<bool> &mask, double threshold, double sigma, double saturated_above, double saturated_from,
               std::int64_t window, std::int64_t most, int threads)
        : mask_(mask), criterion_{threshold, sigma, saturated_above, saturated_from, window / 2, most},
          searchers_(static_cast<std::size_t>(std::max(threads, 1))), team_(threads) {
        if (mask.ndim() != 2) throw std::invalid_argument("the mask must be 2-D");
        if (std::max(mask.shape(0), mask.shape(1)) > std::numeric_limits<std::int32_t>::max())
            throw std::invalid_argument("the frames are too large");
        if (window < 3) throw std::invalid_argument("a window of 3 pixels or more is needed");
        shape_ = {mask.shape(0), mask.shape(1)};
    }

    // Frames from now on have another mask.
    void set_mask(const dense<bool> &mask) {
        if (mask.ndim() != 2 || mask.shape(0) != shape_.rows || mask.shape(1) != shape_.columns)
            throw std::invalid_argument("the masks differ in shape");
        mask_ = mask;
    }

    // What a block of frames gives, or what is wrong with them.
    py::tuple frames(const py::list &sources) {
        std::vector<Source> where;
        for (const py::handle &source : sources) where.push_back(to_source(source, shape_));
        std::vector<Found> found(where.size());
        std::vector<std::optional<std::string>> faults(where.size());
        const Runs all{{0, shape_.rows * shape_.columns}};
        {
            py::gil_scoped_release release;
            team_.loop(0, 1, static_cast<std::int64_t>(where.size()), [&](std::int64_t i, int thread) {
                const auto n = static_cast<std::size_t>(i);
                Searcher &searcher = searchers_[static_cast<std::size_t>(thread)];
                try {
                    searcher.reader.read(where[n], shape_, all, [&](const auto *image) {
                        searcher.search(image, mask_.data(), shape_, criterion_, found[n]);
                    });
                } catch (const Foreign &) {
                    faults[n] = "";
                } catch (const std::exception &error) {  // damaged, or no memory
                    faults[n] = error.what();
                }
            });
        }
        py::list told, regions, runs;
        for (std::size_t i = 0; i < faults.size(); ++i)
            if (faults[i]) told.append(py::make_tuple(i, *faults[i]));
        py::array_t<std::int64_t> numbers(static_cast<py::ssize_t>(found.size()));
        py::array_t<double> backgrounds({static_cast<py::ssize_t>(found.size()), py::ssize_t{2}});
        for (std::size_t i = 0; i < found.size() && told.empty(); ++i) {
            numbers.mutable_data()[i] = found[i].n_regions;
            backgrounds.mutable_data()[2 * i] = found[i].background;
            backgrounds.mutable_data()[2 * i + 1] = found[i].used;
            regions.append(table<double>(found[i].regions));
            runs.append(table<std::int32_t>(found[i].runs));
        }
        return py::make_tuple(numbers, backgrounds, regions, runs, told);
    }

  private:
    template <class T, class Row> static py::array_t<T> table(const std::vector<Row> &rows) {
        const auto width = static_cast<py::ssize_t>(sizeof(Row) / sizeof(T));
        py::array_t<T> all({static_cast<py::ssize_t>(rows.size()), width});
        if (!rows.empty()) std::memcpy(all.mutable_data(), rows.data(), rows.size() * sizeof(Row));
        return all;
    }

    dense<bool> mask_;
    Shape shape_{};
    Criterion criterion_;
    std::vector<Searcher> searchers_;
    Team team_;
};

// Pairs of regions of two frames that have a pixel in common; runs as `frames` gives them, in the order of rows.
py::array_t<std::int64_t> link_runs(const dense<std::int32_t> &one, const dense<std::int32_t> &other) {
    if (one.ndim() != 2 || other.ndim() != 2 || one.shape(1) != 4 || other.shape(1) != 4)
        throw std::invalid_argument("runs of 4 numbers are needed");
    const auto *a = reinterpret_cast<const PixelRun *>(one.data()), *const a_end = a + one.shape(0);
    const auto *b = reinterpret_cast<const PixelRun *>(other.data()), *const b_end = b + other.shape(0);
    std::vector<std::array<std::int64_t, 2>> pairs;
    while (a != a_end && b != b_end) {
        if (a->row == b->row && a->first < b->end && b->first < a->end) pairs.push_back({a->region, b->region});
        if (a->row < b->row || (a->row == b->row && a->end < b->end))
            ++a;
        else
            ++b;
    }
    py::array_t<std::int64_t> all({static_cast<py::ssize_t>(pairs.size()), py::ssize_t{2}});
    if (!pairs.empty()) std::memcpy(all.mutable_data(), pairs.data(), pairs.size() * sizeof(pairs[0]));
    return all;
}

}  // namespace

void register_peaks(py::module_ &m) {
    py::class_<PeakFinder> c(m, "PeakFinder");
    c.def(py::init<const dense<bool> &, double, double, double, double, std::int64_t, std::int64_t, int>(), py::kw_only(),
          py::arg("mask"), py::arg("threshold"), py::arg("sigma"), py::arg("saturated_above"), py::arg("saturated_from"),
          py::arg("window"), py::arg("most"), py::arg("threads") = 1);
    c.def("set_mask", &PeakFinder::set_mask, py::arg("mask"));
    c.def("frames", &PeakFinder::frames, py::arg("sources"));
    m.def("link_runs", &link_runs, py::arg("one").noconvert(), py::arg("other").noconvert());
}
