/*
 * A storage backend of the service registry, as seen from C.
 *
 * A store is a table of functions, handed out by registry_backend_table(). The Rust crate around it (src/) makes a
 * plugin of any store that fills in this table, and keeps what is Rust's business away from it: the binary interface
 * of plugins, their versions, options, and panics.
 *
 * Versions. The table begins with its own size and version. Later versions only add functions at its end and keep
 * what is there; a caller looks at the size before it goes beyond what version 2 has. Version 1 had stores count.
 *
 * Threads. Calls never overlap, but may come from different threads. A call may block.
 *
 * Memory. What is passed in belongs to the caller and is valid during the call. What a store returns in load() belongs
 * to the store and is valid until its next call. Text is UTF-8, may hold any character (0 too), and has a length
 * instead of a 0 at its end.
 *
 * Results. A function that can fail returns 0 if it did not, and otherwise one of the REGISTRY_ERROR_ codes with a
 * message of one line in *error.
 */
#ifndef REGISTRY_BACKEND_H
#define REGISTRY_BACKEND_H

#include <stddef.h>
#include <stdint.h>

#define REGISTRY_BACKEND_VERSION 2u

/* Text: `length` bytes at `data`, which may be null if there are none. */
struct registry_text {
    const char *data;
    size_t length;
};

/* One service. All but the id and what is said here is the host's business: keep it, and give it back. */
struct registry_record {
    struct registry_text id;       /* the key: not empty, unique in the store */
    struct registry_text document; /* JSON */
    const struct registry_text *types;
    size_t types_count;
    uint64_t ttl_ms;
    uint64_t last_heartbeat_ms; /* moved by REGISTRY_RENEW */
    uint64_t revision;          /* of the change that put it; given by the host */
};

enum registry_change_kind {
    REGISTRY_PUT = 1,    /* store the record, in place of the one with the same id */
    REGISTRY_REMOVE = 2, /* remove the record with that id */
    REGISTRY_RENEW = 3   /* set last_heartbeat_ms of the record with that id, if it is there */
};

struct registry_change {
    uint32_t kind;
    /* For REMOVE only the id counts, for RENEW the id and last_heartbeat_ms. */
    struct registry_record record;
};

enum registry_outcome_code {
    REGISTRY_DONE = 1,    /* it is stored, and survives a power cut */
    REGISTRY_MISSING = 2, /* nothing to remove or to renew */
    REGISTRY_TOO_LARGE = 3, /* this change cannot be stored; the others of its group can */
    REGISTRY_UNKNOWN = 4   /* the store does not know this kind of change */
};

struct registry_outcome {
    uint32_t code;
};

/* How far the host has counted: kept in the same write as the changes, and given back. */
struct registry_position {
    struct registry_text epoch; /* at most 64 bytes; empty if nothing was ever committed */
    uint64_t revision;
};

enum registry_error_code {
    REGISTRY_ERROR_UNAVAILABLE = 1, /* the same call may succeed later */
    REGISTRY_ERROR_OPTION = 2,      /* the path cannot be one */
    REGISTRY_ERROR_CORRUPT = 3,     /* the file is damaged, or somebody else's; it has not been touched */
    REGISTRY_ERROR_INTERNAL = 4     /* a defect */
};

struct registry_error {
    char message[512]; /* ends in 0 */
};

struct registry_store; /* the store's own */

struct registry_backend {
    size_t size;      /* sizeof(struct registry_backend) where the store was compiled */
    uint32_t version; /* REGISTRY_BACKEND_VERSION */

    /* Opens the store in that file, making it if it is not there. `path` ends in 0. */
    int (*open)(const char *path, struct registry_store **store, struct registry_error *error);

    /* The position that came with the last commit. */
    void (*position)(struct registry_store *store, struct registry_position *position);

    /*
     * The records behind `after` (an id; empty is before all of them), in an order that goes on from there: up to
     * `capacity` of them into `records`, and how many into `count`. Fewer than `capacity` means that there are no more.
     */
    int (*load)(struct registry_store *store, struct registry_text after, struct registry_record *records,
                size_t capacity, size_t *count, struct registry_error *error);

    /*
     * Makes `count` changes in order, and fills in as many outcomes. An id may come more than once, and there may be no
     * changes at all. It returns when the position and all that is REGISTRY_DONE are safe. If it fails, none of it counts.
     */
    int (*commit)(struct registry_store *store, struct registry_position position,
                  const struct registry_change *changes, size_t count, struct registry_outcome *outcomes,
                  struct registry_error *error);

    /* Frees the store and all that it has. There is nothing left to save. */
    void (*close)(struct registry_store *store);
};

/* What a store written against this header has to define. */
const struct registry_backend *registry_backend_table(void);

#endif
