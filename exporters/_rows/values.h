/* The text of one value, as the server prints it, to a number. Only the very text that the server prints for a value is
 * taken: each function returns false for any other one, so a value that was taken prints as the same text again. */
#pragma once

#include "lines.h"

/* Decimal digits, a minus before them; no zero before other digits, no minus before zero. */
bool read_integer(Field field, int64_t least, int64_t most, int64_t *value);

enum { MOST_SMALL_DIGITS = 18 }; /* a number of so many digits has 64 bits */

/* numeric(precision, scale) with precision <= 38: exactly as many digits behind the point as the scale says. */
bool read_decimal(Field field, unsigned precision, unsigned scale, __int128 *value);

/* A double precision without an exponent, of up to 15 digits: so many digits stand for one double only, and are the
 * shortest ones that do. */
bool read_double(Field field, double *value);

/* YYYY-MM-DD, years 1 to 9999, to days since 1970. */
bool read_date(Field field, int32_t *days);

enum { ANY_DIGITS = 0xFF };

/* HH:MM:SS up to 23:59:59, with a fraction of exactly so many digits, to microseconds. Any digits: up to six, the last one
 * no zero. */
bool read_time(Field field, unsigned digits, int64_t *microseconds);

/* A date, a blank and a time, to microseconds since 1970; with a zone, +00 stands behind it. */
bool read_timestamp(Field field, unsigned digits, bool has_zone, int64_t *microseconds);

/* 8-4-4-4-12 digits, lower case, to 16 bytes. */
bool read_uuid(Field field, unsigned char *bytes);

/* \x and pairs of digits, lower case, to half as many bytes. */
bool read_hex(Field field, unsigned char *bytes);

/* Whether bytes are UTF-8 (RFC 3629): nothing longer than needed, no surrogates, nothing above U+10FFFF. */
bool is_utf8(const unsigned char *text, size_t size);
