/* ONNX Runtime's C interface without its header: a table of functions to which new versions only append. */
#ifndef ORT_H
#define ORT_H
#include <stddef.h>
#include <stdint.h>

#include "job.h"

typedef struct {
  void *session;
  size_t input_count, output_count;
  const char **input_names, **output_names;
  void **inputs, **outputs;
  unsigned char *output_stays; /* a tensor, given back to the next run so that no timed run allocates it */
  int64_t load_ns, first_run_ns;
  const char *stage; /* what failed: "load", "input" or "run"; NULL while nothing has */
  char *problem;
} Loaded;

typedef struct { const char *type; const char *name; const void *bytes; size_t count, rank; int64_t shape[16]; } Output;

const char *open_runtime(const Job *job, const char **version);     /* NULL, or why the library cannot be used */
char *missing_provider(const char *name);                            /* NULL, or the names of those that the library has */
void load(Loaded *model, const JobModel *given, const Job *job);     /* leaves stage and problem where it fails */
int run_once(Loaded *model);                                         /* 0, or 1 with stage and problem set */
int first_run(Loaded *model);                                        /* the same; from now on the outputs' memory is kept */
int read_output(Loaded *model, size_t index, Output *output);        /* 0, or 1 with stage and problem set */
int64_t clock_ns(int clock);
#endif
