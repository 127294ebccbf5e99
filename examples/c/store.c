/*
 * A durable store in C: all records in memory, sorted by id, and a log of what has been changed (log.h).
 *
 * A commit makes its changes in memory, noting how to undo them, and then appends them to the log as one frame. If that
 * fails, they are undone. When the store is opened, the log is made anew with what is left of it.
 */
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "records.h"
#include "registry_backend.h"

/* In a log's frames, besides the kinds of change. Each frame of a commit begins with it, and so does the first. */
enum { POSITION = 4 };

struct registry_store {
    struct log log;
    char *epoch;
    size_t epoch_length;
    uint64_t revision;
    struct records records;
};

/* A new log gets frames of about this size. */
static const size_t FRAME_BYTES = (size_t)1 << 20;

static int no_memory(struct registry_error *error) {
    return fail(error, REGISTRY_ERROR_UNAVAILABLE, "out of memory");
}

static void encode_put(struct buffer *buffer, const struct registry_record *record) {
    static const unsigned char KIND = REGISTRY_PUT;
    buffer_bytes(buffer, &KIND, 1);
    buffer_text(buffer, record->id);
    buffer_text(buffer, record->document);
    buffer_u64(buffer, record->types_count);
    for (size_t i = 0; i < record->types_count; i++) {
        buffer_text(buffer, record->types[i]);
    }
    buffer_u64(buffer, record->ttl_ms);
    buffer_u64(buffer, record->last_heartbeat_ms);
    buffer_u64(buffer, record->revision);
}

/* A position with its revision, a removal with its own, or a renewal with the heartbeat. */
static void encode_other(struct buffer *buffer, uint32_t kind, struct registry_text text, uint64_t number) {
    unsigned char byte = (unsigned char)kind;
    buffer_bytes(buffer, &byte, 1);
    buffer_text(buffer, text);
    buffer_u64(buffer, number);
}

/* Makes a change that the log tells of. */
static int repeat(struct registry_store *store, const struct registry_change *change, struct registry_error *error) {
    struct step step;
    uint32_t code = records_apply(&store->records, change, &step);
    if (code == 0) {
        return no_memory(error);
    }
    if (code != REGISTRY_DONE) {
        return REGISTRY_ERROR_CORRUPT;
    }
    if (step.before != step.after) {
        free(step.before);
    }
    return 0;
}

static int repeat_put(struct registry_store *store, struct reader *body, struct registry_error *error) {
    struct registry_change change = {.kind = REGISTRY_PUT};
    change.record.id = reader_text(body);
    change.record.document = reader_text(body);
    uint64_t count = reader_u64(body);
    if (count > body->left / 8) { /* each type has at least its length */
        return REGISTRY_ERROR_CORRUPT;
    }
    struct registry_text *types = calloc((size_t)count + 1, sizeof *types);
    if (types == NULL) {
        return no_memory(error);
    }
    for (size_t i = 0; i < count; i++) {
        types[i] = reader_text(body);
    }
    change.record.types = types;
    change.record.types_count = (size_t)count;
    change.record.ttl_ms = reader_u64(body);
    change.record.last_heartbeat_ms = reader_u64(body);
    change.record.revision = reader_u64(body);
    int result = body->failed ? REGISTRY_ERROR_CORRUPT : repeat(store, &change, error);
    free(types);
    return result;
}

/* A copy of the text, or null if there is no memory. */
static char *copy_of(struct registry_text text) {
    char *copy = malloc(text.length + 1);
    if (copy != NULL && text.length > 0) {
        memcpy(copy, text.data, text.length);
    }
    return copy;
}

/* `epoch` is the store's own from now on. */
static void set_position(struct registry_store *store, char *epoch, struct registry_position position) {
    free(store->epoch);
    store->epoch = epoch;
    store->epoch_length = position.epoch.length;
    store->revision = position.revision;
}

static int repeat_position(struct registry_store *store, struct registry_position position,
                           struct registry_error *error) {
    char *epoch = copy_of(position.epoch);
    if (epoch == NULL) {
        return no_memory(error);
    }
    set_position(store, epoch, position);
    return 0;
}

/* Makes the changes of a frame. For REGISTRY_ERROR_CORRUPT the caller has the words. */
static int repeat_frame(struct registry_store *store, struct reader *body, struct registry_error *error) {
    int result = 0;
    while (result == 0 && body->left > 0) {
        uint32_t kind = reader_byte(body);
        if (kind != POSITION && store->epoch == NULL) {
            return REGISTRY_ERROR_CORRUPT;
        }
        if (kind == REGISTRY_PUT) {
            result = repeat_put(store, body, error);
            continue;
        }
        struct registry_change change = {.kind = kind};
        change.record.id = reader_text(body);
        uint64_t number = reader_u64(body);
        change.record.last_heartbeat_ms = number;
        if (body->failed) {
            return REGISTRY_ERROR_CORRUPT;
        }
        if (kind == POSITION) {
            result = repeat_position(store, (struct registry_position){change.record.id, number}, error);
        } else if (kind == REGISTRY_REMOVE || kind == REGISTRY_RENEW) {
            result = repeat(store, &change, error);
        } else {
            result = REGISTRY_ERROR_CORRUPT;
        }
    }
    return result;
}

static int read_log(struct registry_store *store, bool *exists, struct registry_error *error) {
    struct log_contents contents = {0};
    int result = log_read(&store->log, exists, &contents, error);
    if (result != 0 || !*exists) {
        return result;
    }
    struct reader body;
    enum log_frame frame = log_next(&contents, &body);
    while (frame == LOG_FRAME && result == 0) {
        result = repeat_frame(store, &body, error);
        frame = log_next(&contents, &body);
    }
    if (result == REGISTRY_ERROR_CORRUPT || frame == LOG_DAMAGED || (result == 0 && store->epoch == NULL)) {
        result = fail(error, REGISTRY_ERROR_CORRUPT,
                      "%s is damaged: restore it from a backup, or move it away to begin anew", store->log.path);
    }
    free(contents.bytes);
    return result;
}

/* Makes the log anew, and as short as can be. */
static int shorten(struct registry_store *store, struct registry_error *error) {
    struct log fresh;
    struct buffer body = {0};
    int result = log_begin(&store->log, &fresh, error);
    if (result == 0) {
        encode_other(&body, POSITION, (struct registry_text){store->epoch, store->epoch_length}, store->revision);
    }
    for (size_t i = 0; i < store->records.count && result == 0; i++) {
        encode_put(&body, &store->records.entries[i]->record);
        if (body.length >= FRAME_BYTES || body.failed) {
            result = log_add(&fresh, &body, error);
            body.length = 0;
        }
    }
    if (result == 0 && body.length > 0) {
        result = log_add(&fresh, &body, error);
    }
    if (result == 0) {
        result = log_finish(&store->log, &fresh, error);
    }
    if (result != 0) {
        log_abandon(&fresh);
    }
    buffer_free(&body);
    return result;
}

static void close_store(struct registry_store *store) {
    records_free(&store->records);
    free(store->epoch);
    log_close(&store->log);
    free(store);
}

static int open_store(const char *path, struct registry_store **store, struct registry_error *error) {
    struct registry_store *opened = calloc(1, sizeof *opened);
    if (opened == NULL) {
        return no_memory(error);
    }
    bool exists = false;
    int result = log_open(&opened->log, path, error);
    if (result == 0) {
        result = read_log(opened, &exists, error);
    }
    if (result == 0 && !exists) {
        result = repeat_position(opened, (struct registry_position){{NULL, 0}, 0}, error);
    }
    if (result == 0) {
        result = shorten(opened, error);
    }
    if (result != 0) {
        close_store(opened);
        return result;
    }
    *store = opened;
    return 0;
}

static void position(struct registry_store *store, struct registry_position *position) {
    *position = (struct registry_position){{store->epoch, store->epoch_length}, store->revision};
}

static int load(struct registry_store *store, struct registry_text after, struct registry_record *records,
                size_t capacity, size_t *count, struct registry_error *error) {
    (void)error; /* everything is in memory */
    const struct records *all = &store->records;
    size_t at = records_after(all, after);
    size_t left = all->count - at;
    *count = left < capacity ? left : capacity;
    for (size_t i = 0; i < *count; i++) {
        records[i] = all->entries[at + i]->record;
    }
    return 0;
}

/* Makes one change of a group, and adds it to the frame. Returns false if there is no memory. */
static bool make(struct registry_store *store, const struct registry_change *change, struct registry_outcome *outcome,
                 struct step *step, struct buffer *frame) {
    outcome->code = records_apply(&store->records, change, step);
    if (outcome->code == REGISTRY_DONE && change->kind == REGISTRY_PUT) {
        encode_put(frame, &step->after->record);
    } else if (outcome->code == REGISTRY_DONE && change->kind == REGISTRY_REMOVE) {
        encode_other(frame, REGISTRY_REMOVE, change->record.id, change->record.revision);
    } else if (outcome->code == REGISTRY_DONE) {
        encode_other(frame, REGISTRY_RENEW, change->record.id, change->record.last_heartbeat_ms);
    }
    return outcome->code != 0;
}

static int commit(struct registry_store *store, struct registry_position position,
                  const struct registry_change *changes, size_t count, struct registry_outcome *outcomes,
                  struct registry_error *error) {
    /* Before anything is changed: after a failure the old log may have lost its name, and must not go on. */
    int result = log_is_long(&store->log) ? shorten(store, error) : 0;
    if (result != 0) {
        return result;
    }
    struct step *steps = calloc(count + 1, sizeof *steps); /* one more, so that it is never 0 */
    char *epoch = copy_of(position.epoch);
    if (steps == NULL || epoch == NULL) {
        free(steps);
        free(epoch);
        return no_memory(error);
    }
    struct buffer frame = {0};
    encode_other(&frame, POSITION, position.epoch, position.revision);
    size_t made = 0;
    while (made < count && result == 0) {
        result = make(store, &changes[made], &outcomes[made], &steps[made], &frame) ? 0 : no_memory(error);
        made++;
    }
    if (result == 0) {
        result = log_append(&store->log, &frame, error);
    }
    if (result == 0) {
        set_position(store, epoch, position);
    } else {
        free(epoch);
        while (made > 0) {
            records_undo(&store->records, &steps[--made]);
        }
    }
    for (size_t i = 0; i < made; i++) {
        if (steps[i].before != steps[i].after) {
            free(steps[i].before);
        }
    }
    buffer_free(&frame);
    free(steps);
    return result;
}

const struct registry_backend *registry_backend_table(void) {
    static const struct registry_backend TABLE = {
        .size = sizeof(struct registry_backend),
        .version = REGISTRY_BACKEND_VERSION,
        .open = open_store,
        .position = position,
        .load = load,
        .commit = commit,
        .close = close_store,
    };
    return &TABLE;
}
