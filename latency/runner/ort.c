#include "ort.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "text.h"

/* Places in OrtApi, from onnxruntime_c_api.h; API 11 is the first that has all of them, but for APPEND_PROVIDER: that needs 12. */
enum {
  GET_ERROR_MESSAGE = 2, CREATE_ENV = 3, CREATE_SESSION_FROM_ARRAY = 8, RUN = 9, CREATE_SESSION_OPTIONS = 10, SET_EXECUTION_MODE = 13,
  SET_LOG_SEVERITY = 22, SET_OPT_LEVEL = 23, SET_INTRA_THREADS = 24, SET_INTER_THREADS = 25, INPUT_COUNT = 30, OUTPUT_COUNT = 31,
  INPUT_TYPE_INFO = 33, INPUT_NAME = 36, OUTPUT_NAME = 37, CREATE_TENSOR = 49, IS_TENSOR = 50, TENSOR_DATA = 51, CAST_TO_TENSOR_INFO = 55,
  ELEMENT_TYPE = 60, DIMENSION_COUNT = 61, DIMENSIONS = 62, SYMBOLIC_DIMENSIONS = 63, ELEMENT_COUNT = 64, TENSOR_INFO = 65,
  CREATE_CPU_MEMORY_INFO = 69, DEFAULT_ALLOCATOR = 78, RELEASE_STATUS = 93, RELEASE_VALUE = 96, RELEASE_TYPE_INFO = 98,
  RELEASE_TENSOR_INFO = 99, RELEASE_SESSION_OPTIONS = 100, AVAILABLE_PROVIDERS = 125, RELEASE_PROVIDERS = 126,
  ADD_CONFIG_ENTRY = 130, APPEND_PROVIDER = 216, API_VERSION = 11, API_WITH_PROVIDERS = 12,
};
enum { MAX_RANK = 16 };

typedef struct { const void *const *(*api)(uint32_t); const char *(*version)(void); } ApiBase;
typedef void Status;

static const void *const *api;
static void *environment, *memory_info, *allocator, *library_handle;

/* The function at a place: its result, then the types of its arguments. */
#define ORT(place, result, ...) ((result(*)(__VA_ARGS__))api[place])

static const struct { const char *name; size_t bytes; } TYPES[] = {
    {"undefined", 0}, {"float", 4}, {"uint8", 1}, {"int8", 1}, {"uint16", 2}, {"int16", 2}, {"int32", 4}, {"int64", 8}, {"string", 0},
    {"bool", 1}, {"float16", 2}, {"double", 8}, {"uint32", 4}, {"uint64", 8}, {"complex64", 0}, {"complex128", 0}, {"bfloat16", 2},
};
enum { FLOAT = 1, UINT8 = 2, INT8 = 3, INT16 = 5, INT32 = 6, INT64 = 7, BOOL = 9, FLOAT16 = 10, DOUBLE = 11, TYPE_COUNT = 17 };

int64_t clock_ns(int clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static char *message_of(Status *status) {
  char *copy = printed("%s", ORT(GET_ERROR_MESSAGE, const char *, const Status *)(status));
  ORT(RELEASE_STATUS, void, Status *)(status);
  return copy;
}

static int went_wrong(Status *status, Loaded *model, const char *stage) {
  if (!status) return 0;
  model->stage = stage;
  model->problem = message_of(status);
  return 1;
}

const char *open_runtime(const Job *job, const char **version) {
  int plain = !strcmp(job->provider, "cpu");
  library_handle = dlopen(job->library, RTLD_NOW | RTLD_LOCAL);
  if (!library_handle) return dlerror();
  const ApiBase *(*base)(void) = (const ApiBase *(*)(void))dlsym(library_handle, "OrtGetApiBase");
  if (!base) return "it has no OrtGetApiBase";
  *version = base()->version();
  api = base()->api(plain ? API_VERSION : API_WITH_PROVIDERS);
  if (!api) return plain ? "it is older than 1.11" : "it is older than 1.12, the first with other providers than cpu";
  Status *status = ORT(CREATE_ENV, Status *, int, const char *, void **)(4, "runner", &environment);
  if (!status) status = ORT(CREATE_CPU_MEMORY_INFO, Status *, int, int, void **)(1, 0, &memory_info);
  if (!status) status = ORT(DEFAULT_ALLOCATOR, Status *, void **)(&allocator);
  return status ? message_of(status) : NULL;
}

/* Where a provider is that is no plain "cpu": what the library calls it, and what the call that adds it does. */
static const struct { const char *name, *in_library, *appended; } PROVIDERS[] = {
    {"cpu", "CPUExecutionProvider", NULL},
    {"xnnpack", "XnnpackExecutionProvider", "XNNPACK"},
    {"nnapi", "NnapiExecutionProvider", NULL}, /* added by a function of its own */
};
enum { CPU, XNNPACK, NNAPI, PROVIDER_COUNT };

static int provider_of(const char *name) {
  for (int i = 0; i < PROVIDER_COUNT; i++)
    if (!strcmp(PROVIDERS[i].name, name)) return i;
  give_up("the job's provider is not known: '%s'", name);
}

char *missing_provider(const char *name) {
  const char *wanted = PROVIDERS[provider_of(name)].in_library;
  char **names = NULL;
  int count = 0, found = 0;
  Text text = {0};
  Status *status = ORT(AVAILABLE_PROVIDERS, Status *, char ***, int *)(&names, &count);
  if (status) return message_of(status);
  for (int i = 0; i < count; i++) {
    found |= !strcmp(names[i], wanted);
    add(&text, "%s%.*s", i ? ", " : "", (int)(strlen(names[i]) - (strstr(names[i], "ExecutionProvider") ? 17 : 0)), names[i]);
  }
  ORT(RELEASE_PROVIDERS, void, char **, int)(names, count);
  return found ? NULL : printed("it has %s", count ? text.bytes : "none");
}

/* XNNPACK has threads of its own: the session's other operators then keep to one, so that the two do not spin against each other. */
static Status *add_provider(void *options, const Job *job) {
  int provider = provider_of(job->provider);
  if (provider == NNAPI) {
    Status *(*append)(void *, uint32_t) =
        (Status * (*)(void *, uint32_t)) dlsym(library_handle, "OrtSessionOptionsAppendExecutionProvider_Nnapi");
    if (!append) give_up("the library says that it has nnapi, and not how to add it");
    return append(options, 0);
  }
  if (provider == CPU) return NULL;
  const char *keys[] = {"intra_op_num_threads"}, *values[] = {printed("%ld", job->threads)};
  Status *status = ORT(SET_INTRA_THREADS, Status *, void *, int)(options, 1);
  return status ? status
                : ORT(APPEND_PROVIDER, Status *, void *, const char *, const char *const *, const char *const *, size_t)(
                      options, PROVIDERS[provider].appended, keys, values, 1);
}

static int open_session(Loaded *model, const JobModel *given, const Job *job) {
  void *options = NULL;
  int64_t began = clock_ns(CLOCK_MONOTONIC);
  Status *status = ORT(CREATE_SESSION_OPTIONS, Status *, void **)(&options);
  if (!status) status = ORT(SET_EXECUTION_MODE, Status *, void *, int)(options, 0);
  if (!status) status = ORT(SET_LOG_SEVERITY, Status *, void *, int)(options, 4);
  if (!status) status = ORT(SET_OPT_LEVEL, Status *, void *, int)(options, (int)job->opt_level);
  if (!status) status = ORT(SET_INTRA_THREADS, Status *, void *, int)(options, (int)job->threads);
  if (!status) status = ORT(SET_INTER_THREADS, Status *, void *, int)(options, 1);
  Status *(*configure)(void *, const char *, const char *) = ORT(ADD_CONFIG_ENTRY, Status *, void *, const char *, const char *);
  if (!status) status = configure(options, "session.intra_op.allow_spinning", "1");
  /* A model's threads must not spin on while the next model is timed. */
  if (!status) status = configure(options, "session.force_spinning_stop", "1");
  if (!status) status = add_provider(options, job);
  if (!status)
    status = ORT(CREATE_SESSION_FROM_ARRAY, Status *, void *, const void *, size_t, void *, void **)(
        environment, given->bytes, given->count, options, &model->session);
  model->load_ns = clock_ns(CLOCK_MONOTONIC) - began;
  if (options) ORT(RELEASE_SESSION_OPTIONS, void, void *)(options);
  return went_wrong(status, model, "load");
}

static uint64_t random_state;

static uint32_t random_bits(void) { /* xorshift64* */
  random_state ^= random_state >> 12, random_state ^= random_state << 25, random_state ^= random_state >> 27;
  return (uint32_t)(random_state * 0x2545F4914F6CDD1Dull >> 32);
}

/* Uniform in [0, 1) for floats ([0.5, 1) for halves); the whole non-negative range for bytes; 0 or 1 for wider integers, which may be
 * indices. */
static void make_up(void *data, size_t count, int type) {
  for (size_t i = 0; i < count; i++) {
    uint32_t bits = random_bits();
    switch (type) {
      case FLOAT: ((float *)data)[i] = (float)(bits >> 8) / 16777216.0f; break;
      case DOUBLE: ((double *)data)[i] = bits / 4294967296.0; break;
      case FLOAT16: ((uint16_t *)data)[i] = (uint16_t)(0x3800 | bits >> 22); break;
      case UINT8: ((uint8_t *)data)[i] = (uint8_t)(bits >> 24); break;
      case INT8: ((uint8_t *)data)[i] = (uint8_t)(bits >> 25); break;
      case BOOL: ((uint8_t *)data)[i] = (uint8_t)(bits >> 31); break;
      case INT16: ((int16_t *)data)[i] = (int16_t)(bits >> 31); break;
      case INT32: ((int32_t *)data)[i] = (int32_t)(bits >> 31); break;
      case INT64: ((int64_t *)data)[i] = (int64_t)(bits >> 31); break;
    }
  }
}

static int can_be_made_up(int type) {
  return type == FLOAT || type == DOUBLE || type == FLOAT16 || type == UINT8 || type == INT8 || type == BOOL || type == INT16 ||
         type == INT32 || type == INT64;
}

static char *shape_text(const int64_t *shape, const char **symbols, size_t rank) {
  Text text = {0};
  add(&text, "[");
  for (size_t i = 0; i < rank; i++) {
    const char *comma = i ? ", " : "";
    if (shape[i] >= 0) add(&text, "%s%lld", comma, (long long)shape[i]);
    else if (symbols[i] && *symbols[i]) add(&text, "%s'%s'", comma, symbols[i]);
    else add(&text, "%sNone", comma);
  }
  add(&text, "]");
  return text.bytes;
}

static int refuse(Loaded *model, const char *stage, char *problem) {
  model->stage = stage;
  model->problem = problem;
  return 1;
}

/* The shape with an open batch taken as 1. */
static int read_shape(Loaded *model, const char *name, const void *info, int *type, int64_t *shape, size_t *rank) {
  const char *symbols[MAX_RANK] = {0};
  if (went_wrong(ORT(ELEMENT_TYPE, Status *, const void *, int *)(info, type), model, "input")) return 1;
  if (went_wrong(ORT(DIMENSION_COUNT, Status *, const void *, size_t *)(info, rank), model, "input")) return 1;
  if (*rank > MAX_RANK)
    return refuse(model, "input", printed("input '%s' has %zu dimensions, at most %d are handled", name, *rank, MAX_RANK));
  if (went_wrong(ORT(DIMENSIONS, Status *, const void *, int64_t *, size_t)(info, shape, *rank), model, "input")) return 1;
  if (went_wrong(ORT(SYMBOLIC_DIMENSIONS, Status *, const void *, const char **, size_t)(info, symbols, *rank), model, "input")) return 1;
  for (size_t i = 1; i < *rank; i++) {
    if (shape[i] >= 0) continue;
    char *shown = shape_text(shape, symbols, *rank);
    return refuse(model, "input", printed("only the batch may be open, and input '%s' has shape %s", name, shown));
  }
  if (*rank && shape[0] < 0) shape[0] = 1;
  return 0;
}

static const GivenInput *given_for(const JobModel *given, const char *name) {
  for (int i = 0; i < given->input_count; i++)
    if (!strcmp(given->inputs[i].name, name)) return &given->inputs[i];
  return NULL;
}

static int fill(Loaded *model, const JobModel *given, size_t index, int type, const int64_t *shape, size_t rank) {
  const char *name = model->input_names[index], *type_name = type >= 0 && type < TYPE_COUNT ? TYPES[type].name : "type of another kind";
  size_t count = 1, width = type >= 0 && type < TYPE_COUNT ? TYPES[type].bytes : 0;
  for (size_t i = 0; i < rank; i++) count *= (size_t)shape[i];
  void *data = NULL;
  if (posix_memalign(&data, 64, count * width + 64)) give_up("out of memory: %zu bytes wanted for input %s", count * width, name);
  const GivenInput *values = given_for(given, name);
  if (values && values->count != count * width)
    return refuse(model, "input", printed("input '%s' takes %zu bytes, got %zu", name, count * width, values->count));
  if (values) memcpy(data, values->bytes, values->count);
  else if (given->input_count) return refuse(model, "input", printed("input '%s' was given no value", name));
  else if (!can_be_made_up(type))
    return refuse(model, "input", printed("input '%s' is a tensor(%s), and only float16, float, double, bool, int8, uint8, int16, int32, "
                                          "int64 can be made up", name, type_name));
  else make_up(data, count, type);
  return went_wrong(ORT(CREATE_TENSOR, Status *, const void *, void *, size_t, const int64_t *, size_t, int, void **)(
                        memory_info, data, count * width, shape, rank, type, &model->inputs[index]), model, "input");
}

static int prepare_input(Loaded *model, const JobModel *given, size_t index) {
  void *owner = NULL;
  const void *info = NULL;
  char *name = NULL;
  int type = 0;
  int64_t shape[MAX_RANK] = {0};
  size_t rank = 0;
  Status *status = ORT(INPUT_NAME, Status *, void *, size_t, void *, char **)(model->session, index, allocator, &name);
  if (went_wrong(status, model, "input")) return 1;
  model->input_names[index] = name;
  if (went_wrong(ORT(INPUT_TYPE_INFO, Status *, void *, size_t, void **)(model->session, index, &owner), model, "input")) return 1;
  if (went_wrong(ORT(CAST_TO_TENSOR_INFO, Status *, void *, const void **)(owner, &info), model, "input")) return 1;
  if (!info) return refuse(model, "input", printed("input '%s' is no tensor", name));
  int failed = read_shape(model, name, info, &type, shape, &rank) || fill(model, given, index, type, shape, rank);
  ORT(RELEASE_TYPE_INFO, void, void *)(owner);
  return failed;
}

void load(Loaded *model, const JobModel *given, const Job *job) {
  random_state = 0x9E3779B97F4A7C15ull; /* equal inputs for equal models */
  if (open_session(model, given, job)) return;
  if (went_wrong(ORT(INPUT_COUNT, Status *, void *, size_t *)(model->session, &model->input_count), model, "load")) return;
  if (went_wrong(ORT(OUTPUT_COUNT, Status *, void *, size_t *)(model->session, &model->output_count), model, "load")) return;
  model->input_names = room_for(model->input_count * sizeof(char *));
  model->inputs = room_for(model->input_count * sizeof(void *));
  model->output_names = room_for(model->output_count * sizeof(char *));
  model->outputs = room_for(model->output_count * sizeof(void *));
  model->output_stays = room_for(model->output_count);
  for (size_t i = 0; i < model->input_count; i++)
    if (prepare_input(model, given, i)) return;
  for (size_t i = 0; i < model->output_count; i++) {
    char *name = NULL;
    if (went_wrong(ORT(OUTPUT_NAME, Status *, void *, size_t, void *, char **)(model->session, i, allocator, &name), model, "load")) return;
    model->output_names[i] = name;
  }
}

int run_once(Loaded *model) {
  for (size_t i = 0; i < model->output_count; i++) {
    if (!model->outputs[i] || model->output_stays[i]) continue;
    ORT(RELEASE_VALUE, void, void *)(model->outputs[i]);
    model->outputs[i] = NULL;
  }
  Status *(*run)(void *, const void *, const char *const *, void *const *, size_t, const char *const *, size_t, void **) =
      ORT(RUN, Status *, void *, const void *, const char *const *, void *const *, size_t, const char *const *, size_t, void **);
  Status *status = run(model->session, NULL, model->input_names, model->inputs, model->input_count, model->output_names,
                       model->output_count, model->outputs);
  return went_wrong(status, model, "run");
}

int first_run(Loaded *model) {
  int64_t began = clock_ns(CLOCK_MONOTONIC);
  if (run_once(model)) return 1;
  model->first_run_ns = clock_ns(CLOCK_MONOTONIC) - began;
  for (size_t i = 0; i < model->output_count; i++) {
    int tensor = 0;
    if (!model->outputs[i]) continue;
    if (went_wrong(ORT(IS_TENSOR, Status *, const void *, int *)(model->outputs[i], &tensor), model, "run")) return 1;
    model->output_stays[i] = (unsigned char)tensor;
  }
  return 0;
}

int read_output(Loaded *model, size_t index, Output *output) {
  void *info = NULL, *data = NULL;
  int tensor = 0, type = 0;
  size_t count = 0;
  memset(output, 0, sizeof *output);
  output->name = model->output_names[index];
  if (!model->outputs[index]) return refuse(model, "run", printed("output '%s' has no value", output->name));
  if (went_wrong(ORT(IS_TENSOR, Status *, const void *, int *)(model->outputs[index], &tensor), model, "run")) return 1;
  if (!tensor) return refuse(model, "run", printed("output '%s' is no tensor", output->name));
  if (went_wrong(ORT(TENSOR_INFO, Status *, const void *, void **)(model->outputs[index], &info), model, "run")) return 1;
  Status *status = ORT(ELEMENT_TYPE, Status *, const void *, int *)(info, &type);
  if (!status) status = ORT(DIMENSION_COUNT, Status *, const void *, size_t *)(info, &output->rank);
  if (!status && output->rank <= MAX_RANK)
    status = ORT(DIMENSIONS, Status *, const void *, int64_t *, size_t)(info, output->shape, output->rank);
  if (!status) status = ORT(ELEMENT_COUNT, Status *, const void *, size_t *)(info, &count);
  ORT(RELEASE_TENSOR_INFO, void, void *)(info);
  if (went_wrong(status, model, "run")) return 1;
  if (output->rank > MAX_RANK || type < 0 || type >= TYPE_COUNT || !TYPES[type].bytes)
    return refuse(model, "run", printed("output '%s' has a type or rank that is not handled", output->name));
  if (went_wrong(ORT(TENSOR_DATA, Status *, void *, void **)(model->outputs[index], &data), model, "run")) return 1;
  output->type = TYPES[type].name;
  output->bytes = data;
  output->count = count * TYPES[type].bytes;
  return 0;
}
