/* What a PostgreSQL server sends, cut into messages (PostgreSQL documentation, "Message Formats"). */
#ifndef MOVEOUT_MESSAGES_H
#define MOVEOUT_MESSAGES_H

#include <stdbool.h>
#include <stddef.h>

enum { MESSAGE_HEAD_BYTES = 5, COPY_DATA = 'd' };

typedef struct {
    const unsigned char *body;
    size_t size;
    unsigned char kind;
} Message;

typedef enum { WHOLE, NOT_WHOLE, NO_MESSAGE } MessageResult;

/* Find the message that begins a text. NOT_WHOLE: more of it has to arrive, or it is a row of more than most_bytes.
 * NO_MESSAGE: its length is none. */
MessageResult message_at(const unsigned char *text, size_t size, size_t most_bytes, Message *message);

/* Find the rows that begin a text, one after the other: the bytes of all, and the bytes that their messages take. */
void rows_at(const unsigned char *text, size_t size, size_t most_bytes, size_t *row_bytes, size_t *message_bytes);

/* Copy these rows, without the heads of their messages. */
void copy_rows(const unsigned char *text, size_t message_bytes, unsigned char *to);

#endif
