// The pixels of one frame inside the balls |Q - G - d| <= delta_max round the nodes it sees, where d is the measured shift
// of a Bragg peak from its node G. A point is a pixel and its counts; what follows from its place (Q - d, correction) is
// computed when it is asked for, which takes less time than memory for it.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <type_traits>
#include <vector>

using Vector = std::array<double, 3>;
using Matrix = std::array<Vector, 3>;

// What becomes of a pixel of the shell; the lost ones are tallied in this order.
enum Fate : std::uint8_t { nearer, masked, negative, over_threshold, kept };
constexpr int n_causes = kept;

struct Point {
    std::int32_t row, column;
    double counts;
};

// First row, end row, first column, end column.
using Box = std::array<std::int64_t, 4>;

// What a frame gives: points and peaks lie in runs of one region each.
struct Gathered {
    std::vector<Point> points, peaks;
    std::vector<std::int64_t> n_points, n_peaks;  // of each region
    std::vector<std::array<std::int64_t, n_causes>> lost;
    std::vector<std::uint8_t> hot;  // whether a good pixel of the ball exceeds the threshold

    void clear();
};

// Where the rays that a pixel counts enter a thick sensor; tds2el.experiment.parallax is the same in Python.
struct Sensor {
    double row, column;  // of the foot point
    double pixel_size, dist, thickness, mu;

    bool thick() const { return thickness > 0; }
    // Replaces n pixels by the places where their rays enter.
    void enter(double *row, double *column, std::int64_t n) const;
};

// Geometry of a scan and its nodes. Constant while frames are gathered, so that threads can share it.
struct Shells {
    std::int64_t rows, columns;
    Matrix pixel_to_lab;
    Sensor sensor;
    Vector beam;
    double wave_number;
    Vector in_plane, normal;
    double pol_degree;
    std::vector<Vector> centres, shifts;  // of each blob
    // Of blob b, neighbours offsets[b] to offsets[b + 1] − 1, the nearest first; q belongs to a neighbour v if q·v > v²/2.
    std::vector<Vector> neighbours;
    std::vector<std::int64_t> offsets;
    std::vector<double> bisectors;
    double min2, max2, threshold, saturation;
    std::int64_t border;  // pixels round one above the threshold that are lost with it; < 0: the whole region

    template <class T> bool above(T counts) const {
        // Unsigned detectors mark saturation by the largest value of the type.
        if constexpr (std::is_unsigned_v<T>)
            if (counts == std::numeric_limits<T>::max()) return true;
        const double n = static_cast<double>(counts);
        return n > threshold || n >= saturation;
    }
    bool is_nearer_to_another(const Vector &q, double q2, std::int64_t blob) const;

    // Of n pixels: Q less the shift of the blob (n, 3), and POL·C3·denominator.
    template <class Pixel>
    void places(const Pixel *row, const Pixel *column, std::int64_t n, const Matrix &turn, std::int64_t blob, double *q) const;
    template <class Pixel>
    void corrections(const Pixel *row, const Pixel *column, std::int64_t n, double denominator, float *correction) const;
};

// Gathers frames one after the other; each thread has its own, whose memory is kept from frame to frame.
class Gatherer {
  public:
    template <class T>
    void gather(const Shells &shells, const T *image, const bool *mask, const Matrix &turn, std::int64_t blob,
                const Box &box, Gathered &found);

  private:
    std::vector<double> row_;  // places in one row of pixels
    std::vector<std::array<std::int64_t, 2>> hot_;
    std::vector<std::uint8_t> near_;

    std::int64_t reject_hot(const Box &box, std::int64_t border, std::size_t before, std::vector<Point> &points);
};
