/*
 * The records of a store, in memory: an array of pointers, sorted by id. Each change can be undone.
 */
#ifndef RECORDS_H
#define RECORDS_H

#include <stddef.h>
#include <stdint.h>

#include "registry_backend.h"

/* A record, and behind it what its texts point to. */
struct entry {
    struct registry_record record;
    struct registry_text types[];
};

/* By id. All zero is an empty one. */
struct records {
    struct entry **entries;
    size_t count;
    size_t capacity;
};

/* What a change has done: put `after` where `before` was; either may be null. The same one twice: it was renewed. */
struct step {
    struct entry *before;
    struct entry *after;
    uint64_t last_heartbeat_ms; /* before */
};

/*
 * Makes a change, and says what was done in *step, whose `before` is the caller's then: to be freed if it is not
 * `after`, or handed to records_undo. Returns a registry_outcome_code, or 0 if there is no memory.
 */
uint32_t records_apply(struct records *records, const struct registry_change *change, struct step *step);

/* Undoes a step: the latest first. */
void records_undo(struct records *records, const struct step *step);

/* Where the first record behind that id is. */
size_t records_after(const struct records *records, struct registry_text id);

void records_free(struct records *records);

#endif
