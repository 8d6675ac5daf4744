#include "messages.h"

#include <stdint.h>
#include <string.h>

/* A message is its kind (a byte), its length without the kind (four bytes, big-endian), and its body. */
static inline uint32_t length_of(const unsigned char *message) {
    return (uint32_t)message[1] << 24 | (uint32_t)message[2] << 16 | (uint32_t)message[3] << 8 | message[4];
}

MessageResult message_at(const unsigned char *text, size_t size, size_t most_bytes, Message *message) {
    enum { LENGTH_BYTES = 4 };
    if (size < MESSAGE_HEAD_BYTES) return NOT_WHOLE;
    uint32_t length = length_of(text);
    if (length < LENGTH_BYTES || length > INT32_MAX) return NO_MESSAGE;
    *message = (Message){text + MESSAGE_HEAD_BYTES, length - LENGTH_BYTES, text[0]};
    if (message->kind == COPY_DATA && message->size > most_bytes) return NOT_WHOLE;
    return message->size <= size - MESSAGE_HEAD_BYTES ? WHOLE : NOT_WHOLE;
}

void rows_at(const unsigned char *text, size_t size, size_t most_bytes, size_t *row_bytes, size_t *message_bytes) {
    Message message;
    *row_bytes = *message_bytes = 0;
    while (message_at(text + *message_bytes, size - *message_bytes, most_bytes, &message) == WHOLE &&
           message.kind == COPY_DATA) {
        *row_bytes += message.size;
        *message_bytes += MESSAGE_HEAD_BYTES + message.size;
    }
}

void copy_rows(const unsigned char *text, size_t message_bytes, unsigned char *to) {
    Message message;
    for (size_t position = 0; message_at(text + position, message_bytes - position, SIZE_MAX, &message) == WHOLE;
         position += MESSAGE_HEAD_BYTES + message.size) {
        memcpy(to, message.body, message.size);
        to += message.size;
    }
}
