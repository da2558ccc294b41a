/* Entry for libFuzzer; fuzz/run builds and runs it. The codec's C is compiled into this program,
 * with its sanitizers; what must hold is said in Python, by tests/fuzz/targets.py.
 *
 * Objects come from malloc here (PYTHONMALLOC), so a read or write past one of them is seen. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

PyMODINIT_FUNC PyInit__codec(void);

static PyObject *target;

/* FUZZ_PYTHON: the virtual environment's interpreter, whose packages the tests need. */
static void start(void) {
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0;
    config.parse_argv = 0;
    const char *python = getenv("FUZZ_PYTHON");
    if (python != NULL) PyConfig_SetBytesString(&config, &config.executable, python);
    PyStatus status = Py_InitializeFromConfig(&config);
    if (PyStatus_Exception(status)) Py_ExitStatusException(status);
    PyConfig_Clear(&config);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    setenv("PYTHONMALLOC", "malloc", 1);
    if (PyImport_AppendInittab("_codec", PyInit__codec) < 0) abort();
    start();
    /* The name is put in place first, so that bridge.etf takes this codec and not the installed. */
    static const char load[] = "import sys, _codec\n"
                               "sys.modules['bridge.etf._codec'] = _codec\n"
                               "sys.path.insert(0, 'tests/fuzz')\n"
                               "from targets import codec\n"
                               "import bridge.etf\n"
                               "assert bridge.etf.decode is _codec.decode\n";
    if (PyRun_SimpleString(load) < 0) abort();
    PyObject *module = PyImport_ImportModule("targets");
    target = module == NULL ? NULL : PyObject_GetAttrString(module, "codec");
    if (target == NULL) abort();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    PyObject *result = PyObject_CallFunction(target, "y#", data, (Py_ssize_t)size);
    if (result == NULL) {
        PyErr_Print();
        abort();
    }
    Py_DECREF(result);
    return 0;
}
