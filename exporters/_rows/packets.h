/* The rows that a MySQL server sends, cut into packets and values (MySQL documentation, "Client/Server Protocol": "MySQL
 * Packets", "Text Resultset Row"). A block is whole packets, one behind the other, each with one row. */
#pragma once

#include "lines.h"

/* Return the bytes of the rows that begin a text: up to a packet that has not arrived, has a payload of more than
 * most_bytes, or ends the rows. */
size_t packets_at(const unsigned char *text, size_t size, size_t most_bytes);

/* Cut a block of rows, as cut_lines does lines. REFUSED: they have other columns. */
Result cut_packets(void *block, size_t size, size_t columns, Fields *fields);
