/* The rows that a MySQL server sends, cut into packets and values (MySQL documentation, "Client/Server Protocol": "MySQL
 * Packets", "Text Resultset Row"). A block is whole packets, one behind the other, each with one row. */
#pragma once

#include "lines.h"

/* Return the bytes of the rows that begin a text: up to a packet that has not arrived, has a payload of more than
 * most_bytes, or ends the rows. */
size_t packets_at(const unsigned char *text, size_t size, size_t most_bytes);

/* Cut a block of rows of so many columns. NOT_CUT: they have other columns. Whoever calls frees fields->bounds. */
CutResult cut_packets(const unsigned char *text, size_t size, size_t columns, Fields *fields);

/* Add up the XXH3-128 of each payload of a block, modulo 2^128. False: the block does not end with a packet. */
bool digest_packets(const unsigned char *text, size_t size, size_t *rows, unsigned __int128 *digest);
