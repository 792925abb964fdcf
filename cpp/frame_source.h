// Where frames are, and reading them into memory that a thread keeps from frame to frame.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

#include "bitshuffle.h"
#include "cbf.h"
#include "file_bytes.h"
#include "frame_format.h"

// Type of a pixel, as numpy tells it.
struct PixelType {
    char kind;
    int width;
};

// Calls use(T{}) with the type.
template <class Use> void with_type(PixelType type, const Use &use) {
    switch (type.kind << 8 | type.width) {
        case 'i' << 8 | 1: return use(std::int8_t{});
        case 'i' << 8 | 2: return use(std::int16_t{});
        case 'i' << 8 | 4: return use(std::int32_t{});
        case 'i' << 8 | 8: return use(std::int64_t{});
        case 'b' << 8 | 1:
        case 'u' << 8 | 1: return use(std::uint8_t{});
        case 'u' << 8 | 2: return use(std::uint16_t{});
        case 'u' << 8 | 4: return use(std::uint32_t{});
        case 'u' << 8 | 8: return use(std::uint64_t{});
        case 'f' << 8 | 4: return use(float{});
        case 'f' << 8 | 8: return use(double{});
        default: throw std::invalid_argument("a frame of this type cannot be read");
    }
}

struct Shape {
    std::int64_t rows, columns;
};

// Where a frame is.
struct CbfFile {
    std::string path;
};
struct Chunk {  // of an HDF5 file, compressed by bitshuffle and LZ4
    std::string path;
    std::uint64_t offset, size;
    PixelType type;
};
struct Image {  // in memory
    const void *pixels;
    PixelType type;
};
using Source = std::variant<CbfFile, Chunk, Image>;

// A path, a tuple (path, offset, size, type) or an image of that shape, as Python names a frame.
inline Source to_source(const pybind11::handle &source, Shape shape) {
    namespace py = pybind11;
    if (py::isinstance<py::str>(source)) return CbfFile{source.cast<std::string>()};
    if (py::isinstance<py::tuple>(source)) {
        const auto [path, offset, size, type] =
            source.cast<std::tuple<std::string, std::uint64_t, std::uint64_t, py::dtype>>();
        return Chunk{path, offset, size, {type.kind(), static_cast<int>(type.itemsize())}};
    }
    const auto image = source.cast<py::array>();
    if (image.ndim() != 2 || image.shape(0) != shape.rows || image.shape(1) != shape.columns ||
        !(image.flags() & py::array::c_style))
        throw std::invalid_argument("the frame and the mask differ in shape, or the frame is not contiguous");
    const PixelType type{image.dtype().kind(), static_cast<int>(image.dtype().itemsize())};
    with_type(type, [](auto) {});
    return Image{image.data(), type};
}

// What one thread keeps.
class FrameReader {
  public:
    // Calls use(pixels) with the image, in which at least the runs are read; Foreign or Damaged if it cannot be.
    template <class Use> void read(const Source &source, Shape shape, const Runs &runs, const Use &use) {
        std::visit([&](const auto &s) { read_from(s, shape, runs, use); }, source);
    }

  private:
    template <class Use> void read_from(const CbfFile &source, Shape shape, const Runs &runs, const Use &use) {
        if (!file_.read_first(source.path)) throw Foreign{};
        const cbf::Section section = cbf::find_section(file_);
        if (section.rows != shape.rows || section.columns != shape.columns) throw Foreign{};
        cbf_image_.resize(static_cast<std::size_t>(shape.rows * shape.columns));
        cbf::decode(section, file_, runs, cbf_image_.data());
        file_.close();
        use(static_cast<const std::int32_t *>(cbf_image_.data()));
    }

    template <class Use> void read_from(const Chunk &source, Shape shape, const Runs &runs, const Use &use) {
        if (!file_.read(source.path, source.offset, source.size)) throw Foreign{};
        const std::int64_t n = shape.rows * shape.columns;
        const auto bytes = static_cast<std::size_t>(n * source.type.width);
        if (chunk_image_size_ < bytes) {
            chunk_image_.reset(new std::uint8_t[bytes]);
            chunk_image_size_ = bytes;
        }
        bitshuffle::decode(file_.data(), file_.size(), n, source.type.width, runs, chunk_image_.get(), block_);
        with_type(source.type, [&](auto pixel) { use(reinterpret_cast<const decltype(pixel) *>(chunk_image_.get())); });
    }

    template <class Use> void read_from(const Image &source, Shape, const Runs &, const Use &use) {
        with_type(source.type, [&](auto pixel) { use(static_cast<const decltype(pixel) *>(source.pixels)); });
    }

    FileBytes file_;
    std::vector<std::int32_t> cbf_image_;
    std::unique_ptr<std::uint8_t[]> chunk_image_;
    std::size_t chunk_image_size_ = 0;
    bitshuffle::Block block_;
};
