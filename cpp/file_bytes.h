// Bytes of a file, read into memory that is kept from file to file.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>

class FileBytes {
  public:
    FileBytes() = default;
    FileBytes(const FileBytes &) = delete;
    FileBytes &operator=(const FileBytes &) = delete;
    ~FileBytes() { close(); }

    // All of a regular file; false if it cannot be read.
    bool read(const std::string &path) {
        close();
        const bool whole = open(path) && fill(0, length_);
        close();
        return whole;
    }

    // A part; the file stays open for the next part of the same one. False unless all of it is there.
    bool read(const std::string &path, std::uint64_t offset, std::uint64_t size) {
        if ((descriptor_ < 0 || path != path_) && !open(path)) return false;
        return offset <= length_ && size <= length_ - offset && fill(offset, static_cast<std::size_t>(size));
    }

    // Opens a regular file for `read` and tells its size; false if it cannot be opened.
    bool measure(const std::string &path, std::uint64_t &size) {
        const bool opened = open(path);
        size = length_;
        return opened;
    }

    void close() {
        if (descriptor_ >= 0) ::close(descriptor_);
        descriptor_ = -1;
    }

    const std::uint8_t *data() const { return bytes_.get(); }
    std::size_t size() const { return size_; }

  private:
    bool open(const std::string &path) {
        close();
        descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe must not block
        path_ = path;
        struct stat status {};
        if (descriptor_ < 0 || fstat(descriptor_, &status) || !S_ISREG(status.st_mode)) {
            close();
            return false;
        }
        length_ = static_cast<std::size_t>(status.st_size);
        return true;
    }

    bool fill(std::uint64_t offset, std::size_t size) {
        if (size > capacity_) {
            bytes_.reset(new std::uint8_t[size + size / 8]);  // frames of a scan differ a little in size
            capacity_ = size + size / 8;
        }
        for (size_ = 0; size_ < size;) {
            const ssize_t n =
                pread(descriptor_, bytes_.get() + size_, size - size_, static_cast<off_t>(offset + size_));
            if (n < 0 && errno == EINTR) continue;
            if (n <= 0) return false;
            size_ += static_cast<std::size_t>(n);
        }
        return true;
    }

    std::unique_ptr<std::uint8_t[]> bytes_;
    std::size_t capacity_ = 0, size_ = 0, length_ = 0;
    std::string path_;
    int descriptor_ = -1;
};
