#include "files/atomic_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <random>
#include <string_view>
#include <system_error>
#include <utility>

#include "files/size_signal.h"

namespace resnetcore {
namespace {

constexpr std::string_view prefix = ".resnetcore-", suffix = ".tmp";

// What an error names.
struct Target {
    const char* operation;
    std::string path;

    [[noreturn]] void fail(int error) const {
        throw std::system_error(error, std::generic_category(), std::string(operation) + ": '" + path + "'");
    }
    // The result of a system call that gives −1 for an error.
    template <class Result>
    Result checked(Result result) const {
        if (result == -1) fail(errno);
        return result;
    }
    void check_regular(const struct stat& status) const {
        if (S_ISDIR(status.st_mode)) fail(EISDIR);
        if (!S_ISREG(status.st_mode)) fail(EINVAL);
    }
};

// `call` again, as long as signals interrupt it.
template <class Call>
auto uninterrupted(Call call) {
    for (;;)
        if (const auto result = call(); result != -1 || errno != EINTR) return result;
}

// Where a symbolic link leads, also one to a file that is not there yet.
std::string resolved(const std::string& path) {
    constexpr int most_links = 40;
    std::filesystem::path at = path;
    std::error_code ignored;
    for (int i = 0; i < most_links && std::filesystem::is_symlink(std::filesystem::symlink_status(at, ignored)); ++i)
        at = at.parent_path() / std::filesystem::read_symlink(at, ignored);
    return at.string();
}

bool lock(int descriptor) { return flock(descriptor, LOCK_EX | LOCK_NB) == 0; }

void sweep(int folder) {
    const int copy = dup(folder);
    if (copy == -1) return;
    const std::unique_ptr<DIR, int (*)(DIR*)> entries(fdopendir(copy), closedir);
    if (!entries) {
        close(copy);
        return;
    }
    while (const dirent* entry = readdir(entries.get())) {
        const std::string_view name = entry->d_name;
        if (name.size() < prefix.size() + suffix.size() || name.substr(0, prefix.size()) != prefix ||
            name.substr(name.size() - suffix.size()) != suffix)
            continue;
        const Descriptor file(openat(folder, entry->d_name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC));
        struct stat status;
        if (file.number() != -1 && fstat(file.number(), &status) == 0 && S_ISREG(status.st_mode) && lock(file.number()))
            unlinkat(folder, entry->d_name, 0);
    }
}

std::string random_name() {
    std::random_device words;
    char hexadecimal[17];
    std::snprintf(hexadecimal, sizeof hexadecimal, "%08x%08x", words(), words());
    return std::string(prefix) + hexadecimal + std::string(suffix);
}

struct NamedFile {
    std::string name;
    Descriptor file;
};

// A new file in `folder`, locked, so that its writer can be told from one that was killed.
NamedFile create_locked(int folder, mode_t mode, const Target& target) {
    for (;;) {
        const std::string name = random_name();
        Descriptor file(target.checked(openat(folder, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)));
        const bool locked = lock(file.number());
        // A file system without locks tells sweepers so too: there, nothing is swept.
        if (!locked && errno != EWOULDBLOCK) return {name, std::move(file)};
        struct stat status;
        // Before it was locked, another writer may have taken the file for an orphan.
        if (locked && fstat(file.number(), &status) == 0 && status.st_nlink > 0) return {name, std::move(file)};
    }
}

// Such a file, removed at the end unless it was renamed.
class Temporary {
public:
    Temporary(int folder, mode_t mode, const Target& target)
        : folder_(folder), created_(create_locked(folder, mode, target)) {}
    ~Temporary() {
        if (!renamed_) unlinkat(folder_, created_.name.c_str(), 0);
    }
    Temporary(const Temporary&) = delete;

    int descriptor() const { return created_.file.number(); }
    void rename_to(const std::string& name, const Target& target) {
        target.checked(renameat(folder_, created_.name.c_str(), folder_, name.c_str()));
        renamed_ = true;
    }

private:
    const int folder_;
    const NamedFile created_;
    bool renamed_ = false;
};

void keep_owner_and_mode(int descriptor, const struct stat& old, const Target& target) {
    // Owner first: changing it clears bits of the mode. One whom a container's user namespace does not know is invalid.
    if (fchown(descriptor, old.st_uid, old.st_gid) == -1 && errno != EPERM && errno != EINVAL) target.fail(errno);
    target.checked(fchmod(descriptor, old.st_mode & 07777));
}

void write_all(int descriptor, const Chunk& chunk, const Target& target) {
    const char* data = static_cast<const char*>(chunk.data);
    for (std::int64_t left = chunk.size; left > 0;) {
        // Linux takes no more at once.
        const std::size_t some = static_cast<std::size_t>(std::min<std::int64_t>(left, 0x7ffff000));
        const auto written = target.checked(uninterrupted([&] { return write(descriptor, data, some); }));
        data += written;
        left -= written;
    }
}

void sync_folder(int folder, const Target& target) {
    // Some network file systems know no fsync of a folder; the rename is then as durable as they make it.
    if (fsync(folder) == -1 && errno != EINVAL && errno != ENOTSUP) target.fail(errno);
}

}  // namespace

Descriptor::~Descriptor() {
    if (number_ != -1) close(number_);
}

Descriptor open_regular(const std::string& path, const char* operation) {
    const Target target{operation, path};
    Descriptor file(
        target.checked(uninterrupted([&] { return open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC); })));
    struct stat status;
    target.checked(fstat(file.number(), &status));
    target.check_regular(status);
    return file;
}

std::int64_t file_size(const Descriptor& file, const std::string& path, const char* operation) {
    struct stat status;
    Target{operation, path}.checked(fstat(file.number(), &status));
    return status.st_size;
}

std::int64_t read_at(const Descriptor& file, std::int64_t offset, void* to, std::int64_t size, const std::string& path,
                     const char* operation) {
    char* data = static_cast<char*>(to);
    std::int64_t count = 0;
    while (count < size) {
        const std::size_t some = static_cast<std::size_t>(std::min<std::int64_t>(size - count, 0x7ffff000));
        const auto got = Target{operation, path}.checked(
            uninterrupted([&] { return pread(file.number(), data + count, some, offset + count); }));
        if (got == 0) break;
        count += got;
    }
    return count;
}

void replace_file(const std::string& path, const std::vector<Chunk>& chunks, const char* operation) {
    const Target target{operation, resolved(path)};
    struct stat old;
    const bool exists = stat(target.path.c_str(), &old) == 0;
    if (!exists && errno != ENOENT) target.fail(errno);
    if (exists) {
        target.check_regular(old);
        // The rename would not ask: it replaces a write-protected file without a word.
        target.checked(access(target.path.c_str(), W_OK));
    }
    const std::filesystem::path whole = target.path;
    const std::string name = whole.filename().string();
    const std::string parent = whole.has_parent_path() ? whole.parent_path().string() : ".";
    const Descriptor folder(target.checked(open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)));
    sweep(folder.number());
    const WithoutSizeSignal quiet;
    Temporary temporary(folder.number(), exists ? 0600 : 0666, target);
    if (exists) keep_owner_and_mode(temporary.descriptor(), old, target);
    for (const Chunk& chunk : chunks) write_all(temporary.descriptor(), chunk, target);
    target.checked(fsync(temporary.descriptor()));
    temporary.rename_to(name, target);
    sync_folder(folder.number(), target);
}

}  // namespace resnetcore
