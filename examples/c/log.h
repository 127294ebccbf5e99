/*
 * The file of a store: 8 bytes that say whose it is, and then frames. A frame is a group of changes:
 *
 *     8 bytes  how long the body is
 *     4 bytes  the checksum of those 8 bytes
 *     4 bytes  the checksum of the body
 *     body     the changes, as store.c encodes them
 *
 * All numbers are little-endian. A frame has been synced before the next one begins, so that a crash can only cut off
 * the last one, which has not been acknowledged then: it is dropped. Anything else that does not fit is damage.
 */
#ifndef LOG_H
#define LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "registry_backend.h"

/* Bytes that are being put together. After a failure (no memory) it takes no more, and says so once. */
struct buffer {
    unsigned char *data;
    size_t length;
    size_t capacity;
    bool failed;
};

void buffer_bytes(struct buffer *buffer, const void *bytes, size_t length);
void buffer_u64(struct buffer *buffer, uint64_t number);
void buffer_text(struct buffer *buffer, struct registry_text text);
void buffer_free(struct buffer *buffer);

/* Bytes that are being taken apart. After a failure (they end too early) it gives zeros, and says so once. */
struct reader {
    const unsigned char *at;
    size_t left;
    bool failed;
};

unsigned char reader_byte(struct reader *reader);
uint64_t reader_u64(struct reader *reader);
struct registry_text reader_text(struct reader *reader);

struct log {
    char *path;
    int lock;       /* the lock file, held for as long as it is open */
    int file;       /* -1 before the first log_finish */
    uint64_t end;   /* where the last frame ends that counts */
    uint64_t begun; /* how long it was when it was last replaced */
};

/* What a file says: a place in it. */
struct log_contents {
    unsigned char *bytes; /* to be freed */
    struct reader rest;
};

enum log_frame { LOG_FRAME, LOG_END, LOG_DAMAGED };

/* Locks the file's name. Returns 0 or one of REGISTRY_ERROR_, as all here that return int. */
int log_open(struct log *log, const char *path, struct registry_error *error);
void log_close(struct log *log);

/* Reads all of the file. *exists says whether there is one; if not, there is nothing to free. */
int log_read(struct log *log, bool *exists, struct log_contents *contents, struct registry_error *error);

/* The next frame's body. */
enum log_frame log_next(struct log_contents *contents, struct reader *body);

/* Appends a frame. When it returns 0 the frame is on the disk; otherwise it does not count. */
int log_append(struct log *log, const struct buffer *body, struct registry_error *error);

/* Whether the log has become long, compared with what is in it. */
bool log_is_long(const struct log *log);

/* A new log is begun, gets its frames, and takes the place of the old one. */
int log_begin(const struct log *log, struct log *fresh, struct registry_error *error);
int log_add(struct log *fresh, const struct buffer *body, struct registry_error *error);
int log_finish(struct log *log, struct log *fresh, struct registry_error *error);
void log_abandon(struct log *fresh);

/* Fills in the error, and returns its code. */
int fail(struct registry_error *error, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
