/* The rows in what a PostgreSQL server sends for a COPY (PostgreSQL documentation, "Message Formats"). */
#ifndef MOVEOUT_MESSAGES_H
#define MOVEOUT_MESSAGES_H

#include <stddef.h>

/* Find the whole rows that begin a text, one after the other, up to one of more than most_bytes or another message: the
 * bytes of all. Returns the bytes that their messages take. */
size_t rows_at(const unsigned char *text, size_t size, size_t most_bytes, size_t *row_bytes);

/* Copy the rows in so many bytes of messages, without their heads. */
void copy_rows(const unsigned char *text, size_t message_bytes, unsigned char *to);

#endif
