/* See records.h. */

#include "records.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* A document of more than this is refused: the limit of other stores too, and far from any overflow. */
static const size_t RECORD_BYTES_MAX = (size_t)1 << 30;

static int compare(struct registry_text one, struct registry_text other) {
    size_t shorter = one.length < other.length ? one.length : other.length;
    int order = shorter == 0 ? 0 : memcmp(one.data, other.data, shorter);
    if (order != 0) {
        return order;
    }
    return one.length < other.length ? -1 : one.length > other.length;
}

/* Where the id is, or would be. */
static size_t position(const struct records *records, struct registry_text id, bool *found) {
    size_t low = 0;
    size_t high = records->count;
    *found = false;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare(records->entries[middle]->record.id, id);
        if (order == 0) {
            *found = true;
            return middle;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static bool has_room(struct records *records) {
    if (records->count < records->capacity) {
        return true;
    }
    size_t capacity = records->capacity == 0 ? 64 : records->capacity * 2;
    if (capacity > SIZE_MAX / sizeof *records->entries) {
        return false;
    }
    struct entry **entries = realloc(records->entries, capacity * sizeof *entries);
    if (entries == NULL) {
        return false;
    }
    records->entries = entries;
    records->capacity = capacity;
    return true;
}

/* There is room, and no such id. */
static void insert(struct records *records, size_t at, struct entry *entry) {
    memmove(records->entries + at + 1, records->entries + at, (records->count - at) * sizeof *records->entries);
    records->entries[at] = entry;
    records->count++;
}

static void take_out(struct records *records, size_t at) {
    records->count--;
    memmove(records->entries + at, records->entries + at + 1, (records->count - at) * sizeof *records->entries);
}

/* How many bytes the texts of a record have, or more than RECORD_BYTES_MAX. */
static size_t bytes_of(const struct registry_record *record) {
    size_t most = RECORD_BYTES_MAX;
    if (record->id.length > most || record->document.length > most || record->types_count > most / 64) {
        return most + 1;
    }
    /* Each summand is at most RECORD_BYTES_MAX, and so is the sum before each addition. */
    size_t sum = record->id.length;
    for (size_t i = 0; i < record->types_count && sum <= most; i++) {
        sum += record->types[i].length > most ? most : record->types[i].length;
    }
    return sum > most ? most + 1 : sum + record->document.length;
}

static struct registry_text copy(char **to, struct registry_text text) {
    struct registry_text copied = {*to, text.length};
    if (text.length > 0) {
        memcpy(*to, text.data, text.length);
    }
    *to += text.length;
    return copied;
}

/* A copy of a record of at most RECORD_BYTES_MAX bytes, in one piece of memory. */
static struct entry *new_entry(const struct registry_record *record) {
    size_t types = record->types_count * sizeof(struct registry_text);
    struct entry *entry = malloc(sizeof *entry + types + bytes_of(record));
    if (entry == NULL) {
        return NULL;
    }
    char *end = (char *)entry + sizeof *entry + types;
    entry->record = *record;
    entry->record.id = copy(&end, record->id);
    entry->record.document = copy(&end, record->document);
    entry->record.types = entry->types;
    for (size_t i = 0; i < record->types_count; i++) {
        entry->types[i] = copy(&end, record->types[i]);
    }
    return entry;
}

uint32_t records_apply(struct records *records, const struct registry_change *change, struct step *step) {
    bool found;
    size_t at = position(records, change->record.id, &found);
    *step = (struct step){0};
    if (change->kind == REGISTRY_PUT) {
        if (bytes_of(&change->record) > RECORD_BYTES_MAX) {
            return REGISTRY_TOO_LARGE;
        }
        struct entry *entry = new_entry(&change->record);
        if (entry == NULL || !has_room(records)) {
            free(entry);
            return 0;
        }
        step->before = found ? records->entries[at] : NULL;
        step->after = entry;
        if (found) {
            records->entries[at] = entry;
        } else {
            insert(records, at, entry);
        }
        return REGISTRY_DONE;
    }
    if (change->kind != REGISTRY_REMOVE && change->kind != REGISTRY_RENEW) {
        return REGISTRY_UNKNOWN;
    }
    if (!found) {
        return REGISTRY_MISSING;
    }
    step->before = records->entries[at];
    if (change->kind == REGISTRY_REMOVE) {
        take_out(records, at);
    } else {
        step->after = step->before;
        step->last_heartbeat_ms = step->before->record.last_heartbeat_ms;
        step->before->record.last_heartbeat_ms = change->record.last_heartbeat_ms;
    }
    return REGISTRY_DONE;
}

/* Room is never given back, so that what was there fits in again. */
void records_undo(struct records *records, const struct step *step) {
    if (step->before == step->after) {
        if (step->before != NULL) {
            step->before->record.last_heartbeat_ms = step->last_heartbeat_ms;
        }
        return;
    }
    bool found;
    struct entry *one = step->after != NULL ? step->after : step->before;
    size_t at = position(records, one->record.id, &found);
    if (step->after == NULL) {
        insert(records, at, step->before);
    } else if (step->before == NULL) {
        take_out(records, at);
    } else {
        records->entries[at] = step->before;
    }
    free(step->after);
}

size_t records_after(const struct records *records, struct registry_text id) {
    bool found;
    size_t at = position(records, id, &found);
    return found ? at + 1 : at;
}

void records_free(struct records *records) {
    for (size_t i = 0; i < records->count; i++) {
        free(records->entries[i]);
    }
    free(records->entries);
    *records = (struct records){0};
}
