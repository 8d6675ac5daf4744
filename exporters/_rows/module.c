/* The Python module exporters._rows._core; _core.pyi says what its functions do. The interpreter's lock is not held
 * while a block is read. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000 /* one build for Python 3.11 and later */
#include <Python.h>
#include <stdlib.h>

#include "binary_rows.h"
#include "columns.h"
#include "lines.h"
#include "messages.h"
#include "packets.h"
#include "xxh3.h"

enum { INTERFACE = 6, DIGEST_BYTES = 16, KIND_BYTES = sizeof(ColumnKind) };

/* Memory that Python frees when no array needs it any more. */
typedef struct {
    PyObject_HEAD
    Bytes bytes;
} BufferObject;

static PyTypeObject *buffer_type;

static int buffer_get(PyObject *self, Py_buffer *view, int flags) {
    Bytes bytes = ((BufferObject *)self)->bytes;
    return PyBuffer_FillInfo(view, self, bytes.data, (Py_ssize_t)bytes.size, 1, flags);
}

static void buffer_free(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    free(((BufferObject *)self)->bytes.data);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyType_Slot buffer_slots[] = {
    {Py_bf_getbuffer, buffer_get},
    {Py_tp_dealloc, buffer_free},
    {0, NULL},
};

static PyType_Spec buffer_spec = {
    .name = "exporters._rows._core.Buffer",
    .basicsize = sizeof(BufferObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = buffer_slots,
};

/* Hand over a buffer to Python; None for one without data. */
static PyObject *as_object(Bytes *bytes) {
    if (!bytes->data) return Py_NewRef(Py_None);
    BufferObject *object = PyObject_New(BufferObject, buffer_type);
    if (!object) return NULL;
    object->bytes = *bytes;
    bytes->data = NULL;
    return (PyObject *)object;
}

static PyObject *as_column(Column *column) {
    PyObject *buffers[BUFFERS];
    for (int i = 0; i < BUFFERS; i++) {
        buffers[i] = i == VALUES && column->items ? as_column(column->items) : as_object(&column->buffers[i]);
        if (buffers[i]) continue;
        while (i-- > 0) Py_DECREF(buffers[i]);
        return NULL;
    }
    return Py_BuildValue("(ONNNn)", column->is_raw ? Py_True : Py_False, buffers[VALIDITY], buffers[OFFSETS],
                         buffers[VALUES], (Py_ssize_t)column->nulls);
}

static PyObject *as_digest(unsigned __int128 digest) {
    unsigned char bytes[DIGEST_BYTES];
    for (int i = DIGEST_BYTES; i-- > 0; digest >>= 8) bytes[i] = (unsigned char)digest;
    return PyBytes_FromStringAndSize((const char *)bytes, DIGEST_BYTES);
}

/* Cuts the rows of a block into fields. */
typedef CutResult (*CutRows)(const unsigned char *text, size_t size, size_t columns, Fields *fields);

static PyObject *as_block(const Fields *fields, Column *columns) {
    PyObject *list = PyList_New((Py_ssize_t)fields->columns);
    for (size_t i = 0; list && i < fields->columns; i++) {
        PyObject *column = as_column(&columns[i]);
        if (!column || PyList_SetItem(list, (Py_ssize_t)i, column) < 0) Py_CLEAR(list);
    }
    return list ? Py_BuildValue("(nNN)", (Py_ssize_t)fields->rows, as_digest(fields->digest), list) : NULL;
}

static PyObject *parse_rows(PyObject *arguments, CutRows cut_rows) {
    Py_buffer block, kinds;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(arguments, "y*y*", &block, &kinds)) return NULL;
    size_t count = (size_t)kinds.len / KIND_BYTES;
    const ColumnKind *kind = kinds.buf;
    bool are_known = count && kinds.len % KIND_BYTES == 0;
    for (size_t i = 0; are_known && i < count; i++) are_known = is_known(kind[i]);
    Column *columns = are_known ? calloc(count, sizeof *columns) : NULL;
    if (!are_known) {
        PyErr_SetString(PyExc_ValueError, "three bytes for each column: a known letter, precision and scale");
    } else if (!columns) {
        PyErr_NoMemory();
    } else {
        Fields fields;
        bool has_memory = true;
        CutResult cut;
        Py_BEGIN_ALLOW_THREADS
        cut = cut_rows(block.buf, (size_t)block.len, count, &fields);
        for (size_t i = 0; cut == CUT && has_memory && i < count; i++)
            has_memory = fill_column(&fields, i, kind[i], &columns[i]);
        Py_END_ALLOW_THREADS
        if (cut == NO_MEMORY || !has_memory)
            PyErr_NoMemory();
        else
            result = cut == CUT ? as_block(&fields, columns) : Py_NewRef(Py_None);
        free(fields.bounds);
        for (size_t i = 0; i < count; i++) release_column(&columns[i]);
        free(columns);
    }
    PyBuffer_Release(&kinds);
    PyBuffer_Release(&block);
    return result;
}

static PyObject *parse(PyObject *Py_UNUSED(module), PyObject *arguments) {
    return parse_rows(arguments, cut_fields);
}

static PyObject *parse_packets(PyObject *Py_UNUSED(module), PyObject *arguments) {
    return parse_rows(arguments, cut_packets);
}

typedef bool (*DigestBlock)(const unsigned char *text, size_t size, size_t *rows, unsigned __int128 *digest);

static PyObject *rows_and_digest(PyObject *argument, DigestBlock digest_rows) {
    Py_buffer block;
    size_t rows;
    unsigned __int128 digest;
    bool is_whole;
    if (PyObject_GetBuffer(argument, &block, PyBUF_SIMPLE) < 0) return NULL;
    Py_BEGIN_ALLOW_THREADS
    is_whole = digest_rows(block.buf, (size_t)block.len, &rows, &digest);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&block);
    return is_whole ? Py_BuildValue("(nN)", (Py_ssize_t)rows, as_digest(digest)) : Py_NewRef(Py_None);
}

static PyObject *digest_block(PyObject *Py_UNUSED(module), PyObject *block) {
    return rows_and_digest(block, digest_lines);
}

static PyObject *digest_packet_block(PyObject *Py_UNUSED(module), PyObject *block) {
    return rows_and_digest(block, digest_packets);
}

static PyObject *digest_texts(PyObject *Py_UNUSED(module), PyObject *texts) {
    unsigned __int128 digest = 0;
    Py_ssize_t count;
    if (!PyList_Check(texts)) return PyErr_Format(PyExc_TypeError, "a list of bytes is needed");
    count = PyList_Size(texts);
    for (Py_ssize_t i = 0; i < count; i++) {
        char *text;
        Py_ssize_t size;
        if (PyBytes_AsStringAndSize(PyList_GetItem(texts, i), &text, &size) < 0) return NULL;
        digest += xxh3_128((const unsigned char *)text, (size_t)size);
    }
    return as_digest(digest);
}

static PyObject *whole_rows(PyObject *Py_UNUSED(module), PyObject *arguments) {
    Py_buffer received;
    Py_ssize_t most_bytes;
    if (!PyArg_ParseTuple(arguments, "y*n", &received, &most_bytes)) return NULL;
    size_t row_bytes, taken = rows_at(received.buf, (size_t)received.len, most_bytes < 0 ? 0 : (size_t)most_bytes, &row_bytes);
    PyObject *rows = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)row_bytes);
    if (rows) copy_rows(received.buf, taken, (unsigned char *)PyBytes_AsString(rows));
    PyBuffer_Release(&received);
    return rows ? Py_BuildValue("(Nn)", rows, (Py_ssize_t)taken) : NULL;
}

static PyObject *whole_packets(PyObject *Py_UNUSED(module), PyObject *arguments) {
    Py_buffer received;
    Py_ssize_t most_bytes;
    if (!PyArg_ParseTuple(arguments, "y*n", &received, &most_bytes)) return NULL;
    size_t size = most_bytes < 0 ? 0 : packets_at(received.buf, (size_t)received.len, (size_t)most_bytes);
    PyBuffer_Release(&received);
    return PyLong_FromSize_t(size);
}

static bool take_column(PyObject *tuple, ArrowColumn *column, Py_buffer *buffers) {
    if (!PyArg_ParseTuple(tuple, "bLnz*z*y*", &column->letter, &column->parameter, &column->offset, &buffers[VALIDITY],
                          &buffers[OFFSETS], &buffers[VALUES]))
        return false;
    for (int i = 0; i < BUFFERS; i++) column->buffers[i] = (Field){buffers[i].buf, (size_t)buffers[i].len};
    return true;
}

static PyObject *binary_rows(PyObject *Py_UNUSED(module), PyObject *arguments) {
    PyObject *tuple;
    Py_ssize_t row_count, taken = 0;
    WriteResult result = NOT_WRITTEN;
    Bytes rows = {0};
    if (!PyArg_ParseTuple(arguments, "O!n", &PyTuple_Type, &tuple, &row_count)) return NULL;
    Py_ssize_t count = PyTuple_Size(tuple);
    ArrowColumn *columns = calloc((size_t)count + 1, sizeof *columns); /* of nothing it may return NULL */
    Py_buffer *buffers = calloc((size_t)count + 1, BUFFERS * sizeof *buffers);
    bool has_memory = columns && buffers;
    while (has_memory && taken < count &&
           take_column(PyTuple_GetItem(tuple, taken), &columns[taken], &buffers[taken * BUFFERS]))
        taken++;
    if (has_memory && taken == count) {
        Py_BEGIN_ALLOW_THREADS
        result = write_rows(columns, (size_t)count, (size_t)row_count, &rows);
        Py_END_ALLOW_THREADS
        if (result == NOT_WRITTEN) PyErr_SetString(PyExc_ValueError, "a column has not so many rows, or an unknown letter");
    }
    if (!has_memory || result == NO_ROOM_FOR_ROWS) PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < taken * BUFFERS; i++) PyBuffer_Release(&buffers[i]);
    free(buffers);
    free(columns);
    return result == WRITTEN ? as_object(&rows) : NULL;
}

/* One value of a row of pgoutput; NULL with an error set. */
static PyObject *as_value(ValueKind kind, Field value, PyObject *unchanged) {
    if (kind == TEXT_VALUE) return PyBytes_FromStringAndSize((const char *)value.text, (Py_ssize_t)value.size);
    return Py_NewRef(kind == NULL_VALUE ? Py_None : unchanged);
}

static PyObject *pgoutput_row(PyObject *Py_UNUSED(module), PyObject *arguments) {
    PyObject *message, *unchanged, *row = NULL;
    Py_ssize_t start, size;
    char *text;
    size_t count;
    if (!PyArg_ParseTuple(arguments, "SnO", &message, &start, &unchanged)) return NULL;
    if (PyBytes_AsStringAndSize(message, &text, &size) < 0) return NULL;
    const unsigned char *bytes = (const unsigned char *)text;
    size_t at = (size_t)start; /* a negative one is behind every end */
    bool is_whole = value_count_at(bytes, (size_t)size, &at, &count);
    if (is_whole && !(row = PyTuple_New((Py_ssize_t)count))) return NULL;
    for (size_t i = 0; is_whole && i < count; i++) {
        Field value;
        ValueKind kind = value_at(bytes, (size_t)size, &at, &value);
        if (!(is_whole = kind != CUT_OFF)) break;
        PyObject *object = as_value(kind, value, unchanged);
        if (!object || PyTuple_SetItem(row, (Py_ssize_t)i, object) < 0) {
            Py_DECREF(row);
            return NULL;
        }
    }
    if (is_whole) return Py_BuildValue("(Nn)", row, (Py_ssize_t)at);
    Py_XDECREF(row);
    return Py_NewRef(Py_None);
}

static PyMethodDef functions[] = {
    {"binary_rows", binary_rows, METH_VARARGS, NULL},
    {"pgoutput_row", pgoutput_row, METH_VARARGS, NULL},
    {"parse", parse, METH_VARARGS, NULL},
    {"parse_packets", parse_packets, METH_VARARGS, NULL},
    {"digest_block", digest_block, METH_O, NULL},
    {"digest_packets", digest_packet_block, METH_O, NULL},
    {"whole_packets", whole_packets, METH_VARARGS, NULL},
    {"digest_texts", digest_texts, METH_O, NULL},
    {"whole_rows", whole_rows, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "exporters._rows._core",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit__core(void) {
    PyObject *module = PyModule_Create(&definition);
    if (!module) return NULL;
    buffer_type = (PyTypeObject *)PyType_FromSpec(&buffer_spec);
    if (!buffer_type || PyModule_AddIntConstant(module, "INTERFACE", INTERFACE) < 0) Py_CLEAR(module);
    return module;
}
