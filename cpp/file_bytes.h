// Bytes of a file, read into memory that is kept from file to file.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <utility>

class FileBytes {
  public:
    FileBytes() = default;
    FileBytes(const FileBytes &) = delete;
    FileBytes &operator=(const FileBytes &) = delete;
    ~FileBytes() { close(); }

    // The first bytes of a regular file, which stays open for `more`; false if it cannot be read.
    bool read_first(const std::string &path) {
        close();
        return open(path) && fill(0, std::min(length_, block));
    }

    // The next block of the file `read_first` has begun, behind the bytes from p to the end of those there, which move to
    // the front: p and `end` follow. So what is read stays in the cache. False at the end of the file, or if it cannot be
    // read.
    bool more(const std::uint8_t *&p, const std::uint8_t *&end) {
        const auto kept = static_cast<std::size_t>(bytes_.get() + size_ - p);
        const std::uint64_t from = position_;
        const std::size_t n = std::min<std::uint64_t>(block, length_ - from);
        if (!n || descriptor_ < 0) return false;
        std::memmove(bytes_.get(), p, kept);
        if (!fill(from, n, kept)) return false;
        p = bytes_.get();
        end = p + size_;
        return true;
    }

    std::uint64_t length() const { return length_; }

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

    // Reads behind `kept` bytes that are there already.
    bool fill(std::uint64_t offset, std::size_t size, std::size_t kept = 0) {
        if (kept + size > capacity_) {
            const std::size_t capacity = std::max(kept + size + size / 8, block + 64);  // frames differ a little in size
            std::unique_ptr<std::uint8_t[]> larger(new std::uint8_t[capacity]);
            if (kept) std::memcpy(larger.get(), bytes_.get(), kept);
            bytes_ = std::move(larger);
            capacity_ = capacity;
        }
        for (size_ = kept; size_ < kept + size;) {
            const std::size_t done = size_ - kept;
            const ssize_t n = pread(descriptor_, bytes_.get() + size_, size - done, static_cast<off_t>(offset + done));
            if (n < 0 && errno == EINTR) continue;
            if (n <= 0) return false;
            size_ += static_cast<std::size_t>(n);
        }
        position_ = offset + size;
        return true;
    }

    static constexpr std::size_t block = 1 << 17;  // fits a core's own cache beside what is decoded

    std::unique_ptr<std::uint8_t[]> bytes_;
    std::size_t capacity_ = 0, size_ = 0, length_ = 0;
    std::uint64_t position_ = 0;  // behind the last byte read
    std::string path_;
    int descriptor_ = -1;
};
