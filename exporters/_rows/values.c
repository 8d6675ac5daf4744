/* Text formats: PostgreSQL documentation, "Data Types", with the settings of docs/FORMAT.md ("Digest"). */

#include "values.h"

#include "sixteen.h"

enum { DATE_CHARACTERS = 10, CLOCK_CHARACTERS = 8, ZONE_CHARACTERS = 3, UUID_CHARACTERS = 36 };

static const int64_t MICROSECONDS_OF_DAY = 86400000000;

static inline bool is_digit(unsigned char character) { return (unsigned char)(character - '0') <= 9; }

/* Append so many digits to a number; false where one is none. */
static inline bool add_digits(const unsigned char *text, size_t count, uint64_t *number) {
    for (size_t i = 0; i < count; i++) {
        if (!is_digit(text[i])) return false;
        *number = *number * 10 + (text[i] - '0');
    }
    return true;
}

/* Digits of a whole number begin with a zero only where they are the number zero. */
static inline bool begins_as_number(const unsigned char *digits, size_t count) {
    return count == 1 || (count > 1 && digits[0] != '0');
}

bool read_integer(Field field, int64_t least, int64_t most, int64_t *value) {
    bool is_negative = field.size && field.text[0] == '-';
    const unsigned char *digits = field.text + is_negative;
    size_t count = field.size - is_negative;
    uint64_t magnitude = 0; /* 19 digits fit it */
    if (count > 19 || !begins_as_number(digits, count) || !add_digits(digits, count, &magnitude)) return false;
    if (is_negative ? !magnitude || magnitude > 0 - (uint64_t)least : magnitude > (uint64_t)most) return false;
    *value = (int64_t)(is_negative ? 0 - magnitude : magnitude);
    return true;
}

bool read_decimal(Field field, unsigned precision, unsigned scale, __int128 *value) {
    bool is_negative = field.size && field.text[0] == '-';
    const unsigned char *digits = field.text + is_negative;
    size_t count = field.size - is_negative, behind = scale ? scale + 1 : 0;
    if (count <= behind) return false;
    size_t whole = count - behind;
    if (!begins_as_number(digits, whole) || (whole > precision - scale && !(whole == 1 && digits[0] == '0')))
        return false;
    if (scale && digits[whole] != '.') return false;
    uint64_t small = 0;
    bool is_small = precision <= MOST_SMALL_DIGITS;
    if (is_small && !(add_digits(digits, whole, &small) && add_digits(digits + whole + 1, scale, &small))) return false;
    unsigned __int128 magnitude = small;
    for (size_t i = is_small ? count : 0; i < count; i++) {
        if (scale && i == whole) continue;
        if (!is_digit(digits[i])) return false;
        magnitude = magnitude * 10 + (digits[i] - '0');
    }
    if (is_negative && !magnitude) return false;
    *value = is_negative ? -(__int128)magnitude : (__int128)magnitude;
    return true;
}

bool read_double(Field field, double *value) {
    enum { MOST_DIGITS = 15, MOST_ZEROS = 4 }; /* the server prints 0.0001 like this, and 1e-05 */
    static const double powers[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9,
                                    1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18};
    bool is_negative = field.size && field.text[0] == '-';
    const unsigned char *digits = field.text + is_negative;
    size_t count = field.size - is_negative, whole = 0;
    while (whole < count && digits[whole] != '.') whole++;
    size_t behind = count > whole ? count - whole - 1 : 0;
    if (!begins_as_number(digits, whole) || (count > whole && (!behind || digits[count - 1] == '0'))) return false;
    if (whole + behind > MOST_DIGITS + MOST_ZEROS) return false;
    uint64_t magnitude = 0;
    if (!add_digits(digits, whole, &magnitude) || !add_digits(digits + whole + 1, behind, &magnitude)) return false;
    double number = (double)magnitude;
    if (number >= powers[MOST_DIGITS]) return false;
    if (magnitude ? number * powers[MOST_ZEROS] < powers[behind] : is_negative || behind) return false;
    double quotient = number / powers[behind]; /* both are exact, so this is the nearest double */
    *value = is_negative ? -quotient : quotient;
    return true;
}

bool read_date(Field field, int32_t *days) {
    static const uint16_t days_before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365};
    const unsigned char *text = field.text;
    uint64_t year = 0, month = 0, day = 0;
    if (field.size != DATE_CHARACTERS || text[4] != '-' || text[7] != '-') return false;
    if (!add_digits(text, 4, &year) || !add_digits(text + 5, 2, &month) || !add_digits(text + 8, 2, &day)) return false;
    if (!year || month - 1 > 11) return false;
    bool is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if (day - 1 >= (uint64_t)days_before[month] - days_before[month - 1] + (month == 2 && is_leap)) return false;
    uint64_t past = year - 1;
    uint64_t since_year_1 = past * 365 + past / 4 - past / 100 + past / 400 + days_before[month - 1] +
                            (month > 2 && is_leap) + day - 1;
    *days = (int32_t)since_year_1 - 719162; /* 1970-01-01 */
    return true;
}

bool read_time(Field field, unsigned digits, int64_t *microseconds) {
    const unsigned char *text = field.text;
    uint64_t hours = 0, minutes = 0, seconds = 0, fraction = 0;
    if (digits == ANY_DIGITS) {
        digits = field.size > CLOCK_CHARACTERS + 1 ? (unsigned)field.size - CLOCK_CHARACTERS - 1 : 0;
        if (digits && text[field.size - 1] == '0') return false;
    }
    if (field.size != CLOCK_CHARACTERS + digits + (digits > 0) || text[2] != ':' || text[5] != ':') return false;
    if (!add_digits(text, 2, &hours) || !add_digits(text + 3, 2, &minutes) || !add_digits(text + 6, 2, &seconds))
        return false;
    if (hours > 23 || minutes > 59 || seconds > 59) return false;
    if (digits > 6 || (digits && text[CLOCK_CHARACTERS] != '.')) return false;
    if (!add_digits(text + CLOCK_CHARACTERS + 1, digits, &fraction)) return false;
    for (; digits < 6; digits++) fraction *= 10;
    *microseconds = (int64_t)((hours * 3600 + minutes * 60 + seconds) * 1000000 + fraction);
    return true;
}

bool read_timestamp(Field field, unsigned digits, bool has_zone, int64_t *microseconds) {
    int32_t days;
    if (field.size <= DATE_CHARACTERS || field.text[DATE_CHARACTERS] != ' ') return false;
    Field clock = {field.text + DATE_CHARACTERS + 1, field.size - DATE_CHARACTERS - 1};
    size_t zone = has_zone ? ZONE_CHARACTERS : 0;
    if (clock.size < zone || memcmp(clock.text + clock.size - zone, "+00", zone) != 0) return false;
    clock.size -= zone;
    if (!read_date((Field){field.text, DATE_CHARACTERS}, &days) || !read_time(clock, digits, microseconds)) return false;
    *microseconds += days * MICROSECONDS_OF_DAY;
    return true;
}

/* The value of a hexadecimal digit of lower case, 16 or more for another character. */
static inline unsigned nibble(unsigned char character) {
    if (is_digit(character)) return character - '0';
    unsigned letter = (unsigned)character - 'a';
    return letter < 6 ? letter + 10 : 16;
}

static inline bool read_pairs(const unsigned char *digits, size_t count, unsigned char *bytes) {
    unsigned all = 0;
    for (size_t i = 0; i < count; i++) {
        unsigned upper = nibble(digits[2 * i]), lower = nibble(digits[2 * i + 1]);
        all |= upper | lower;
        bytes[i] = (unsigned char)(upper << 4 | lower);
    }
    return all < 16;
}

bool read_uuid(Field field, unsigned char *bytes) {
    const unsigned char *text = field.text;
    return field.size == UUID_CHARACTERS && text[8] == '-' && text[13] == '-' && text[18] == '-' && text[23] == '-' &&
           read_pairs(text, 4, bytes) && read_pairs(text + 9, 2, bytes + 4) && read_pairs(text + 14, 2, bytes + 6) &&
           read_pairs(text + 19, 2, bytes + 8) && read_pairs(text + 24, 6, bytes + 10);
}

bool read_hex(Field field, unsigned char *bytes) {
    return field.size >= 2 && field.size % 2 == 0 && field.text[0] == '\\' && field.text[1] == 'x' &&
           read_pairs(field.text + 2, (field.size - 2) / 2, bytes);
}

bool is_utf8(const unsigned char *text, size_t size) {
    for (size_t i = 0; i < size;) {
        if (size - i >= sizeof(Sixteen) && !highest_bits(sixteen_at(text + i))) { /* ASCII, most often */
            i += sizeof(Sixteen);
            continue;
        }
        unsigned char first = text[i];
        size_t length = first < 0x80 ? 1 : first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
        if (!length || length > size - i) return false;
        for (size_t k = 1; k < length; k++)
            if ((text[i + k] & 0xC0) != 0x80) return false;
        unsigned char second = length > 2 ? text[i + 1] : 0x80;
        if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F)) return false;
        if ((first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F)) return false;
        i += length;
    }
    return true;
}
