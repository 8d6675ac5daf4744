/* The Python module exporters._rows._core; _core.pyi says what its functions do. The interpreter's lock is not held
 * while a block is read. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000 /* one build for Python 3.11 and later */
#include <Python.h>
#include <stdlib.h>
#include <string.h>

#include "binary_rows.h"
#include "columns.h"
#include "lines.h"
#include "messages.h"
#include "packets.h"
#include "sqlite_rows.h"
#include "xxh3.h"

enum { INTERFACE = 9, KIND_BYTES = sizeof(ColumnKind), COUNT_BYTES = 2 };

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
    PyObject *values = column->items ? as_column(column->items) : as_object(&column->buffers[VALUES]);
    PyObject *validity = column->nulls ? as_object(&column->buffers[VALIDITY]) : Py_NewRef(Py_None);
    return Py_BuildValue("(ONNNn)", column->is_raw ? Py_True : Py_False, validity, as_object(&column->buffers[OFFSETS]),
                         values, (Py_ssize_t)column->nulls); /* NULL if one is */
}

/* Cuts rows into fields: of a block of so many bytes, or up to so many of a statement. */
typedef Result (*CutRows)(void *source, size_t size, size_t columns, Fields *fields);

static PyObject *as_block(const Fields *fields, Column *columns) {
    PyObject *list = PyList_New((Py_ssize_t)fields->columns);
    for (size_t i = 0; list && i < fields->columns; i++) {
        PyObject *column = as_column(&columns[i]);
        if (!column || PyList_SetItem(list, (Py_ssize_t)i, column) < 0) Py_CLEAR(list);
    }
    const char *digest = (const char *)&fields->digest;
    return list ? Py_BuildValue("(ny#N)", (Py_ssize_t)fields->rows, digest, (Py_ssize_t)sizeof fields->digest, list) : NULL;
}

/* Cut rows and fill columns; None where they are refused. */
static PyObject *filled(void *source, size_t size, const ColumnKind *kinds, Py_ssize_t kinds_bytes, CutRows cut_rows) {
    PyObject *block = NULL;
    size_t count = (size_t)kinds_bytes / KIND_BYTES;
    bool are_known = kinds_bytes % KIND_BYTES == 0;
    for (size_t i = 0; are_known && i < count; i++) are_known = is_known(kinds[i]);
    if (!are_known) return PyErr_Format(PyExc_ValueError, "three bytes for each column: a known letter, precision and scale");
    Column *columns = calloc(count + 1, sizeof *columns); /* of nothing it may return NULL */
    if (!columns) return PyErr_NoMemory();
    Fields fields;
    Result result;
    Py_BEGIN_ALLOW_THREADS
    result = cut_rows(source, size, count, &fields);
    for (size_t i = 0; result == TAKEN && i < count; i++) result = fill_column(&fields, i, kinds[i], &columns[i]);
    Py_END_ALLOW_THREADS
    if (result == NO_MEMORY) PyErr_NoMemory();
    if (result == TAKEN) block = as_block(&fields, columns);
    if (result == REFUSED) block = Py_NewRef(Py_None);
    free(fields.bounds);
    for (size_t i = 0; i < count; i++) release_column(&columns[i]);
    free(columns);
    return block;
}

static PyObject *parse(PyObject *Py_UNUSED(module), PyObject *arguments) {
    Py_buffer block;
    const void *kinds;
    Py_ssize_t kinds_bytes;
    int are_packets = false;
    if (!PyArg_ParseTuple(arguments, "y*y#|p", &block, &kinds, &kinds_bytes, &are_packets)) return NULL;
    PyObject *result = filled(block.buf, (size_t)block.len, kinds, kinds_bytes, are_packets ? cut_packets : cut_lines);
    PyBuffer_Release(&block);
    return result;
}

static PyObject *sqlite_rows(PyObject *Py_UNUSED(module), PyObject *arguments) {
    const void *pointers, *kinds;
    Py_ssize_t pointers_bytes, kinds_bytes, most_rows;
    Statement statement = {0};
    if (!PyArg_ParseTuple(arguments, "y#y#n", &pointers, &pointers_bytes, &kinds, &kinds_bytes, &most_rows)) return NULL;
    if (pointers_bytes != offsetof(Statement, text) || !kinds_bytes || most_rows < 0)
        return PyErr_Format(PyExc_ValueError, "a statement and six functions, columns and a number of rows are needed");
    memcpy(&statement, pointers, (size_t)pointers_bytes);
    PyObject *block = filled(&statement, (size_t)most_rows, kinds, kinds_bytes, fetch_rows);
    free(statement.text);
    return block ? Py_BuildValue("(NO)", block, statement.is_done ? Py_True : Py_False) : NULL;
}

static PyObject *whole_rows(PyObject *Py_UNUSED(module), PyObject *arguments) {
    Py_buffer received;
    Py_ssize_t most_bytes;
    int are_text = false;
    size_t taken = 0;
    if (!PyArg_ParseTuple(arguments, "y*n|p", &received, &most_bytes, &are_text)) return NULL;
    PyObject *rows = PyByteArray_FromStringAndSize(NULL, received.len * (are_text ? 3 : 1));
    if (rows) {
        unsigned char *start = (unsigned char *)PyByteArray_AsString(rows), *end = start;
        Py_BEGIN_ALLOW_THREADS
        taken = take_rows(received.buf, (size_t)received.len, most_bytes < 0 ? 0 : (size_t)most_bytes, are_text, &end);
        Py_END_ALLOW_THREADS
        if (PyByteArray_Resize(rows, end - start) < 0) Py_CLEAR(rows);
    }
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
    Result result = REFUSED;
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
        if (result == REFUSED) PyErr_SetString(PyExc_ValueError, "a column has not so many rows, or an unknown letter");
    }
    if (!has_memory || result == NO_MEMORY) PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < taken * BUFFERS; i++) PyBuffer_Release(&buffers[i]);
    free(buffers);
    free(columns);
    return result == TAKEN ? as_object(&rows) : NULL;
}

static PyObject *pgoutput_row(PyObject *Py_UNUSED(module), PyObject *arguments) {
    PyObject *unchanged;
    const unsigned char *message;
    Py_ssize_t size, start;
    if (!PyArg_ParseTuple(arguments, "y#nO", &message, &size, &start, &unchanged)) return NULL;
    bool has_count = start >= 0 && size - start >= COUNT_BYTES;
    size_t at = (size_t)start + COUNT_BYTES, count = has_count ? (size_t)message[start] << 8 | message[start + 1] : 0;
    PyObject *row = has_count ? PyTuple_New((Py_ssize_t)count) : NULL;
    for (size_t i = 0; row && i < count; i++) {
        Field value;
        ValueKind kind = value_at(message, (size_t)size, &at, &value);
        PyObject *object = kind == CUT_OFF      ? NULL
                           : kind == TEXT_VALUE ? PyBytes_FromStringAndSize((const char *)value.text, (Py_ssize_t)value.size)
                                                : Py_NewRef(kind == NULL_VALUE ? Py_None : unchanged);
        if (!object || PyTuple_SetItem(row, (Py_ssize_t)i, object) < 0) Py_CLEAR(row);
    }
    if (row) return Py_BuildValue("(Nn)", row, (Py_ssize_t)at);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static PyMethodDef functions[] = {
    {"binary_rows", binary_rows, METH_VARARGS, NULL},
    {"pgoutput_row", pgoutput_row, METH_VARARGS, NULL},
    {"parse", parse, METH_VARARGS, NULL},
    {"sqlite_rows", sqlite_rows, METH_VARARGS, NULL},
    {"whole_packets", whole_packets, METH_VARARGS, NULL},
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
