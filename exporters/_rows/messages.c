#include "messages.h"

#include <string.h>

/* A message is its kind (a byte), its length without the kind (four bytes, big-endian), and its body. */
enum { HEAD_BYTES = 5, LENGTH_BYTES = 4, COPY_DATA = 'd' };

static inline uint32_t length_at(const unsigned char *text) {
    return (uint32_t)text[0] << 24 | (uint32_t)text[1] << 16 | (uint32_t)text[2] << 8 | text[3];
}

size_t rows_at(const unsigned char *text, size_t size, size_t most_bytes, size_t *row_bytes) {
    size_t position = 0;
    for (*row_bytes = 0; size - position >= HEAD_BYTES && text[position] == COPY_DATA;) {
        uint32_t length = length_at(text + position + 1);
        size_t body_bytes = (size_t)length - LENGTH_BYTES;
        if (length < LENGTH_BYTES || body_bytes > most_bytes || body_bytes > size - position - HEAD_BYTES) break;
        *row_bytes += body_bytes;
        position += HEAD_BYTES + body_bytes;
    }
    return position;
}

void copy_rows(const unsigned char *text, size_t message_bytes, unsigned char *to) {
    for (size_t position = 0; position < message_bytes;) {
        size_t body_bytes = length_at(text + position + 1) - LENGTH_BYTES;
        memcpy(to, text + position + HEAD_BYTES, body_bytes);
        to += body_bytes;
        position += HEAD_BYTES + body_bytes;
    }
}

ValueKind value_at(const unsigned char *message, size_t size, size_t *at, Field *value) {
    if (*at >= size) return CUT_OFF;
    unsigned char kind = message[(*at)++];
    if (kind != TEXT_VALUE) return kind == NULL_VALUE || kind == UNCHANGED_VALUE ? (ValueKind)kind : CUT_OFF;
    if (size - *at < LENGTH_BYTES) return CUT_OFF;
    *value = (Field){message + *at + LENGTH_BYTES, length_at(message + *at)};
    *at += LENGTH_BYTES;
    if (value->size > size - *at) return CUT_OFF;
    *at += value->size;
    return TEXT_VALUE;
}
