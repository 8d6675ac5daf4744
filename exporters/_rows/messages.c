#include "messages.h"

#include <stdint.h>
#include <string.h>

/* A message is its kind (a byte), its length without the kind (four bytes, big-endian), and its body. */
enum { HEAD_BYTES = 5, LENGTH_BYTES = 4, COPY_DATA = 'd' };

static inline uint32_t length_of(const unsigned char *message) {
    return (uint32_t)message[1] << 24 | (uint32_t)message[2] << 16 | (uint32_t)message[3] << 8 | message[4];
}

size_t rows_at(const unsigned char *text, size_t size, size_t most_bytes, size_t *row_bytes) {
    size_t position = 0;
    for (*row_bytes = 0; size - position >= HEAD_BYTES && text[position] == COPY_DATA;) {
        uint32_t length = length_of(text + position);
        size_t body_bytes = (size_t)length - LENGTH_BYTES;
        if (length < LENGTH_BYTES || body_bytes > most_bytes || body_bytes > size - position - HEAD_BYTES) break;
        *row_bytes += body_bytes;
        position += HEAD_BYTES + body_bytes;
    }
    return position;
}

void copy_rows(const unsigned char *text, size_t message_bytes, unsigned char *to) {
    for (size_t position = 0; position < message_bytes;) {
        size_t body_bytes = length_of(text + position) - LENGTH_BYTES;
        memcpy(to, text + position + HEAD_BYTES, body_bytes);
        to += body_bytes;
        position += HEAD_BYTES + body_bytes;
    }
}
