/* See log.h. */

#define _GNU_SOURCE /* realpath and flock, under -std=c11 */

#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const unsigned char MAGIC[8] = {'R', 'E', 'G', '-', 'C', '\x1a', '\n', '2'};

enum { HEAD_BYTES = 16 };

/* A log that is longer than this, and than four times what it was when it was last replaced, is long. */
static const uint64_t LONG_BYTES = UINT64_C(16) << 20;

int fail(struct registry_error *error, int code, const char *format, ...) {
    va_list values;
    va_start(values, format);
    /* Too long a message is cut off, which is fine. */
    if (vsnprintf(error->message, sizeof error->message, format, values) < 0) {
        error->message[0] = '\0';
    }
    va_end(values);
    return code;
}

static int fail_to(struct registry_error *error, const char *action, const char *path) {
    return fail(error, REGISTRY_ERROR_UNAVAILABLE, "cannot %s %s: %s", action, path, strerror(errno));
}

static int no_memory(struct registry_error *error) {
    return fail(error, REGISTRY_ERROR_UNAVAILABLE, "out of memory");
}

/* CRC-32 as in zip, half a byte at a time. */
static uint32_t checksum(const unsigned char *bytes, size_t length) {
    static const uint32_t TABLE[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    uint32_t sum = 0xffffffff;
    for (size_t i = 0; i < length; i++) {
        sum ^= bytes[i];
        sum = (sum >> 4) ^ TABLE[sum & 15];
        sum = (sum >> 4) ^ TABLE[sum & 15];
    }
    return ~sum;
}

static void store_number(unsigned char *bytes, uint64_t number, size_t length) {
    for (size_t i = 0; i < length; i++) {
        bytes[i] = (unsigned char)(number >> (8 * i));
    }
}

static uint64_t read_number(const unsigned char *bytes, size_t length) {
    uint64_t number = 0;
    for (size_t i = 0; i < length; i++) {
        number |= (uint64_t)bytes[i] << (8 * i);
    }
    return number;
}

void buffer_bytes(struct buffer *buffer, const void *bytes, size_t length) {
    if (buffer->failed || length == 0) {
        return;
    }
    if (length > buffer->capacity - buffer->length) {
        size_t needed = buffer->length + length;
        size_t wanted = buffer->capacity > SIZE_MAX / 2 ? SIZE_MAX : buffer->capacity * 2;
        if (needed < length) { /* it does not fit into a size_t */
            buffer->failed = true;
            return;
        }
        if (wanted < needed) {
            wanted = needed;
        }
        unsigned char *data = realloc(buffer->data, wanted);
        if (data == NULL) {
            buffer->failed = true;
            return;
        }
        buffer->data = data;
        buffer->capacity = wanted;
    }
    memcpy(buffer->data + buffer->length, bytes, length);
    buffer->length += length;
}

void buffer_u64(struct buffer *buffer, uint64_t number) {
    unsigned char bytes[8];
    store_number(bytes, number, sizeof bytes);
    buffer_bytes(buffer, bytes, sizeof bytes);
}

void buffer_text(struct buffer *buffer, struct registry_text text) {
    buffer_u64(buffer, text.length);
    buffer_bytes(buffer, text.data, text.length);
}

void buffer_free(struct buffer *buffer) {
    free(buffer->data);
    *buffer = (struct buffer){0};
}

static const unsigned char *take(struct reader *reader, uint64_t length) {
    if (reader->failed || length > reader->left) {
        reader->failed = true;
        return NULL;
    }
    const unsigned char *bytes = reader->at;
    reader->at += length;
    reader->left -= (size_t)length;
    return bytes;
}

unsigned char reader_byte(struct reader *reader) {
    const unsigned char *byte = take(reader, 1);
    return byte == NULL ? 0 : *byte;
}

uint64_t reader_u64(struct reader *reader) {
    const unsigned char *bytes = take(reader, 8);
    return bytes == NULL ? 0 : read_number(bytes, 8);
}

struct registry_text reader_text(struct reader *reader) {
    uint64_t length = reader_u64(reader);
    const unsigned char *bytes = take(reader, length);
    if (bytes == NULL) {
        return (struct registry_text){NULL, 0};
    }
    return (struct registry_text){(const char *)bytes, (size_t)length};
}

/* A new string: the path with something behind it. */
static char *beside(const char *path, const char *suffix) {
    size_t length = strlen(path) + strlen(suffix) + 1;
    char *name = malloc(length);
    if (name != NULL) {
        (void)snprintf(name, length, "%s%s", path, suffix);
    }
    return name;
}

int log_open(struct log *log, const char *path, struct registry_error *error) {
    *log = (struct log){.lock = -1, .file = -1};
    if (path[0] == '\0' || path[strlen(path) - 1] == '/') {
        return fail(error, REGISTRY_ERROR_OPTION, "option \"path\" is \"%s\", expected a file", path);
    }
    /* By whatever way it is named, a file is to be locked by one name. */
    log->path = realpath(path, NULL);
    if (log->path == NULL && errno == ENOENT) {
        log->path = beside(path, "");
        if (log->path == NULL) {
            return no_memory(error);
        }
    } else if (log->path == NULL) {
        return fail_to(error, "open", path);
    }
    char *name = beside(log->path, ".lock");
    if (name == NULL) {
        return no_memory(error);
    }
    int result = 0;
    log->lock = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (log->lock < 0) {
        result = fail_to(error, "create", name);
    } else if (flock(log->lock, LOCK_EX | LOCK_NB) != 0) {
        result = errno == EWOULDBLOCK
                     ? fail(error, REGISTRY_ERROR_UNAVAILABLE,
                            "%s is in use by another host: stop that one first", log->path)
                     : fail_to(error, "lock", name);
    }
    free(name);
    return result;
}

/* Nothing is lost if closing fails: all that counts has been synced. */
void log_close(struct log *log) {
    if (log->file >= 0) {
        (void)close(log->file);
    }
    if (log->lock >= 0) {
        (void)close(log->lock);
    }
    free(log->path);
    *log = (struct log){.lock = -1, .file = -1};
}

static int read_all(const struct log *log, int file, struct log_contents *contents, struct registry_error *error) {
    struct stat status;
    if (fstat(file, &status) != 0) {
        return fail_to(error, "read", log->path);
    }
    if (!S_ISREG(status.st_mode)) {
        return fail(error, REGISTRY_ERROR_OPTION, "%s is not a file, expected one", log->path);
    }
    size_t length = (size_t)status.st_size;
    unsigned char *bytes = malloc(length + 1); /* one more, so that it is never 0 */
    if (bytes == NULL) {
        return no_memory(error);
    }
    size_t done = 0;
    while (done < length) {
        ssize_t got = read(file, bytes + done, length - done);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            int result = got < 0 ? fail_to(error, "read", log->path)
                                 : fail(error, REGISTRY_ERROR_UNAVAILABLE, "%s became shorter while it was read",
                                        log->path);
            free(bytes);
            return result;
        }
        done += (size_t)got;
    }
    if (length < sizeof MAGIC || memcmp(bytes, MAGIC, sizeof MAGIC) != 0) {
        free(bytes);
        return fail(error, REGISTRY_ERROR_CORRUPT,
                    "%s is not a file of registry_c: name another file, or move this one away to begin anew", log->path);
    }
    contents->bytes = bytes;
    contents->rest = (struct reader){bytes + sizeof MAGIC, length - sizeof MAGIC, false};
    return 0;
}

int log_read(struct log *log, bool *exists, struct log_contents *contents, struct registry_error *error) {
    /* O_NONBLOCK: opening a pipe would wait for somebody at the other end. */
    int file = open(log->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    *exists = file >= 0;
    if (file < 0) {
        return errno == ENOENT ? 0 : fail_to(error, "read", log->path);
    }
    int result = read_all(log, file, contents, error);
    (void)close(file);
    return result;
}

static bool is_zero(const unsigned char *bytes, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (bytes[i] != 0) {
            return false;
        }
    }
    return true;
}

enum log_frame log_next(struct log_contents *contents, struct reader *body) {
    struct reader *rest = &contents->rest;
    /* The last frame may be missing in part. After a power cut it may also have its length and none of its bytes. */
    if (rest->left < HEAD_BYTES || is_zero(rest->at, rest->left)) {
        return LOG_END;
    }
    const unsigned char *head = rest->at;
    uint64_t length = read_number(head, 8);
    if (read_number(head + 8, 4) != checksum(head, 8)) {
        return LOG_DAMAGED;
    }
    if (length > rest->left - HEAD_BYTES) {
        return LOG_END;
    }
    *body = (struct reader){head + HEAD_BYTES, (size_t)length, false};
    if (read_number(head + 12, 4) != checksum(body->at, body->left)) {
        return LOG_DAMAGED;
    }
    rest->at = body->at + body->left;
    rest->left -= HEAD_BYTES + body->left;
    return LOG_FRAME;
}

static bool write_at(int file, const unsigned char *bytes, size_t length, uint64_t offset) {
    while (length > 0) {
        ssize_t written = pwrite(file, bytes, length, (off_t)offset);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            if (written == 0) {
                errno = EIO;
            }
            return false;
        }
        bytes += written;
        length -= (size_t)written;
        offset += (uint64_t)written;
    }
    return true;
}

/* Writes a frame where the log ends, and does not sync it. */
int log_add(struct log *log, const struct buffer *body, struct registry_error *error) {
    if (body->failed) {
        return no_memory(error);
    }
    unsigned char head[HEAD_BYTES];
    store_number(head, body->length, 8);
    store_number(head + 8, checksum(head, 8), 4);
    store_number(head + 12, checksum(body->data, body->length), 4);
    if (!write_at(log->file, head, sizeof head, log->end) ||
        !write_at(log->file, body->data, body->length, log->end + HEAD_BYTES)) {
        return fail_to(error, "write", log->path);
    }
    log->end += HEAD_BYTES + body->length;
    return 0;
}

int log_append(struct log *log, const struct buffer *body, struct registry_error *error) {
    uint64_t end = log->end;
    /* What a failed attempt has left would be behind the frame. */
    if (ftruncate(log->file, (off_t)end) != 0) {
        return fail_to(error, "write", log->path);
    }
    int result = log_add(log, body, error);
    if (result == 0 && fdatasync(log->file) != 0) {
        result = fail_to(error, "sync", log->path);
    }
    if (result != 0) {
        log->end = end;
    }
    return result;
}

bool log_is_long(const struct log *log) {
    return log->end > LONG_BYTES && log->end / 4 > log->begun;
}

int log_begin(const struct log *log, struct log *fresh, struct registry_error *error) {
    *fresh = (struct log){.path = beside(log->path, ".new"), .lock = -1, .file = -1};
    if (fresh->path == NULL) {
        return no_memory(error);
    }
    fresh->file = open(fresh->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fresh->file < 0) {
        return fail_to(error, "create", fresh->path);
    }
    fresh->end = sizeof MAGIC;
    return write_at(fresh->file, MAGIC, sizeof MAGIC, 0) ? 0 : fail_to(error, "write", fresh->path);
}

/* A name is in a directory, which has to reach the disk as well. */
static int sync_directory(const char *path, struct registry_error *error) {
    char *directory = beside(path, "");
    if (directory == NULL) {
        return no_memory(error);
    }
    char *slash = strrchr(directory, '/');
    if (slash != NULL) {
        slash[slash == directory ? 1 : 0] = '\0';
    }
    int file = open(slash == NULL ? "." : directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int result = file >= 0 && fsync(file) == 0 ? 0 : fail_to(error, "sync the directory of", path);
    if (file >= 0) {
        (void)close(file);
    }
    free(directory);
    return result;
}

int log_finish(struct log *log, struct log *fresh, struct registry_error *error) {
    if (fsync(fresh->file) != 0) {
        return fail_to(error, "sync", fresh->path);
    }
    if (rename(fresh->path, log->path) != 0) {
        return fail_to(error, "replace", log->path);
    }
    int result = sync_directory(log->path, error);
    if (result != 0) {
        return result;
    }
    if (log->file >= 0) {
        (void)close(log->file);
    }
    log->file = fresh->file;
    log->end = fresh->end;
    log->begun = fresh->end;
    free(fresh->path);
    *fresh = (struct log){.lock = -1, .file = -1};
    return 0;
}

/* After an error. Its file may have the log's name by now: then there is nothing under its own name. */
void log_abandon(struct log *fresh) {
    if (fresh->path != NULL && fresh->file >= 0) {
        (void)unlink(fresh->path);
    }
    log_close(fresh);
}
