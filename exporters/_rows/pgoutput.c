#include "pgoutput.h"

#include <stdint.h>

bool row_at(const unsigned char *message, size_t size, size_t *at, size_t *count) {
    if (*at > size || size - *at < COUNT_BYTES) return false;
    *count = (size_t)message[*at] << 8 | message[*at + 1];
    *at += COUNT_BYTES;
    return true;
}

bool value_at(const unsigned char *message, size_t size, size_t *at, RowValue *value) {
    enum { LENGTH_BYTES = 4 };
    if (*at >= size) return false;
    *value = (RowValue){NULL, 0, message[(*at)++]};
    if (value->kind != TEXT_VALUE) return value->kind == NULL_VALUE || value->kind == UNCHANGED_VALUE;
    if (size - *at < LENGTH_BYTES) return false;
    const unsigned char *length = message + *at;
    value->size = (uint32_t)length[0] << 24 | (uint32_t)length[1] << 16 | (uint32_t)length[2] << 8 | length[3];
    *at += LENGTH_BYTES;
    if (value->size > size - *at) return false;
    value->text = message + *at;
    *at += value->size;
    return true;
}
