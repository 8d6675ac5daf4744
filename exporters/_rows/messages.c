#include "messages.h"

#include "sixteen.h"

/* A message is its kind (a byte), its length without the kind (four bytes, big-endian), and its body. */
enum { HEAD_BYTES = 5, LENGTH_BYTES = 4, COPY_DATA = 'd' };

static inline uint32_t length_at(const unsigned char *text) {
    return (uint32_t)text[0] << 24 | (uint32_t)text[1] << 16 | (uint32_t)text[2] << 8 | text[3];
}

/* Copy what stands in CSV as it does in text, up to a border, a quote, a backslash, or a tab behind a tab; other tabs become
 * commas. Returns how many bytes these are. Sixteen are read at once, and none behind the end. */
static inline size_t copy_alike(const unsigned char *from, size_t size, const unsigned char *end, unsigned char border,
                                unsigned char *to) {
    size_t i = 0;
    for (unsigned ends = 0; i < size && !ends && (size_t)(end - from) >= i + sizeof(Sixteen);) {
        Sixteen bytes = sixteen_at(from + i), tabs = equal(bytes, '\t'), written = bytes ^ (tabs & ('\t' ^ ','));
        Sixteen others = equal(bytes, border) | equal(bytes, '"') | equal(bytes, '\\');
        ends = highest_bits(others | (tabs & equal(sixteen_at(from + i - 1), '\t')));
        memcpy(to + i, &written, sizeof written);
        i += ends ? (size_t)__builtin_ctz(ends) : sizeof bytes;
    }
    return i < size ? i : size;
}

/* Write a line of COPY's text format as CSV (CopyAttributeOutText and CopyAttributeOutCSV in src/backend/commands/copyto.c
 * of PostgreSQL). Its last byte ends the last value. Returns the end: up to three bytes for each were written. */
static unsigned char *put_line(const unsigned char *from, size_t size, const unsigned char *end, unsigned char *to) {
    static const char letters[] = "bfnrtv", meant[] = "\b\f\n\r\t\v", lone[] = "\\\\.\n", quoted_lone[] = "\"\\.\"\n";
    const unsigned char *first = from, *last = from + size - 1, *line = to;
    bool is_quoted = false;
    if (size == strlen(lone) && memcmp(from, lone, size) == 0)
        return (unsigned char *)memcpy(to, quoted_lone, strlen(quoted_lone)) + strlen(quoted_lone);
    while (from <= last) {
        bool begins_empty = from == first && *from == '\t';
        size_t alike = begins_empty ? 0 : copy_alike(from, (size_t)(last - from), end, is_quoted ? '\t' : ',', to);
        to += alike;
        from += alike;
        bool is_last = from == last, is_empty = from == first || from[-1] == '\t';
        unsigned char byte = *from++;
        if (is_last || byte == '\t') {
            if (is_empty) *to++ = '"';
            if (is_empty || is_quoted) *to++ = '"';
            *to++ = is_last ? byte : ',';
            is_quoted = false;
            continue;
        }
        if (byte == '\\' && from < last) {
            if ((byte = *from++) == 'N') continue; /* NULL */
            const char *letter = strchr(letters, byte);
            if (letter) byte = (unsigned char)meant[letter - letters];
        }
        if (!is_quoted && memchr(",\"\n\r", byte, 4)) {
            unsigned char *value = to;
            while (value > line && value[-1] != ',') value--;
            memmove(value + 1, value, (size_t)(to++ - value));
            *value = '"';
            is_quoted = true;
        }
        if (byte == '"') *to++ = byte;
        *to++ = byte;
    }
    return to;
}

size_t take_rows(const unsigned char *text, size_t size, size_t most_bytes, bool are_text, unsigned char **end) {
    unsigned char *to = *end;
    size_t position = 0;
    while (size - position >= HEAD_BYTES && text[position] == COPY_DATA) {
        const unsigned char *body = text + position + HEAD_BYTES;
        size_t body_bytes = (size_t)length_at(body - LENGTH_BYTES) - LENGTH_BYTES; /* far too many, if it is no length */
        if (body_bytes > most_bytes || body_bytes > size - position - HEAD_BYTES) break;
        if (are_text && body_bytes) to = put_line(body, body_bytes, text + size, to);
        else to = (unsigned char *)memcpy(to, body, body_bytes) + body_bytes;
        position += HEAD_BYTES + body_bytes;
    }
    *end = to;
    return position;
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
