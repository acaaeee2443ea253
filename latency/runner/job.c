#include "job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "text.h"

typedef struct { const char *key; long *whole; double *real; const char **text; } Field;

static JobModel *new_model(Job *job, size_t count) {
  job->models = realloc(job->models, sizeof *job->models * (size_t)(job->model_count + 1));
  if (!job->models) give_up("out of memory");
  JobModel *model = &job->models[job->model_count++];
  memset(model, 0, sizeof *model);
  model->count = count;
  return model;
}

static void new_input(JobModel *model, size_t count, const char *name) {
  model->inputs = realloc(model->inputs, sizeof *model->inputs * (size_t)(model->input_count + 1));
  if (!model->inputs) give_up("out of memory");
  model->inputs[model->input_count++] = (GivenInput){.name = name, .count = count};
}

static void read_line(Job *job, const char *key, char *value) {
  const Field fields[] = {
      {"library", NULL, NULL, &job->library},          {"cpus", NULL, NULL, &job->cpus},
      {"threads", &job->threads, NULL, NULL},          {"opt_level", &job->opt_level, NULL, NULL},
      {"outputs", &job->wants_outputs, NULL, NULL},    {"warmup_runs", &job->warmup_runs, NULL, NULL},
      {"block_runs", &job->block_runs, NULL, NULL},    {"min_rounds", &job->min_rounds, NULL, NULL},
      {"min_samples", &job->min_samples, NULL, NULL},  {"max_samples", &job->max_samples, NULL, NULL},
      {"warmup_ms", NULL, &job->warmup_ms, NULL},      {"block_ms", NULL, &job->block_ms, NULL},
      {"min_ms", NULL, &job->min_ms, NULL},            {"max_ms", NULL, &job->max_ms, NULL},
      {"half_width", NULL, &job->half_width, NULL},    {"provider", NULL, NULL, &job->provider},
      {"sysfs", NULL, NULL, &job->sysfs},              {"anchors", &job->anchors, NULL, NULL},
      {"reference_0_ns", &job->reference_ns[0], NULL, NULL}, {"reference_1_ns", &job->reference_ns[1], NULL, NULL},
      {"pauses", &job->pauses, NULL, NULL},            {"pause_ms", NULL, &job->pause_ms, NULL},
      {"hot_milli_c", &job->hot_milli_c, NULL, NULL},  {"rise_milli_c", &job->rise_milli_c, NULL, NULL},
      {"slow", NULL, &job->slow, NULL},                {"throttled", NULL, &job->throttled, NULL},
      {"longest_pause_ms", NULL, &job->longest_pause_ms, NULL},
  };
  char *end = NULL;
  if (!strcmp(key, "model")) {
    new_model(job, strtoull(value, &end, 10));
    return;
  }
  if (!strcmp(key, "input")) {
    size_t count = strtoull(value, &end, 10);
    if (!job->model_count || *end != ' ') give_up("the job's line 'input %s' is malformed", value);
    new_input(&job->models[job->model_count - 1], count, end + 1);
    return;
  }
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    if (strcmp(key, fields[i].key)) continue;
    if (fields[i].text) *fields[i].text = value;
    else if (fields[i].whole) *fields[i].whole = strtol(value, &end, 10);
    else *fields[i].real = strtod(value, &end);
    if (end && *end) give_up("the job's %s is no number: '%s'", key, value);
    return;
  }
  give_up("the job has a line that this runner does not know: '%s'", key);
}

static const unsigned char *take(unsigned char **at, const unsigned char *end, size_t count) {
  if (count > (size_t)(end - *at)) give_up("the job ends before its models do");
  unsigned char *start = *at;
  *at += count;
  return start;
}

Job parse_job(unsigned char *bytes, size_t count) {
  Job job = {.provider = "cpu", .sysfs = "/sys"};
  unsigned char *at = bytes, *end = bytes + count;
  for (int first = 1;; first = 0) {
    unsigned char *newline = at < end ? memchr(at, '\n', (size_t)(end - at)) : NULL;
    if (!newline) give_up("the job has no data");
    char *line = (char *)at, *space = memchr(at, ' ', (size_t)(newline - at));
    *newline = 0;
    at = newline + 1;
    if (first && strcmp(line, "runner-job 1")) give_up("not a job of this runner");
    if (first) continue;
    if (!strcmp(line, "data")) break;
    if (!space) give_up("the job's line '%s' has no value", line);
    *space = 0;
    read_line(&job, line, space + 1);
  }
  for (int i = 0; i < job.model_count; i++) {
    JobModel *model = &job.models[i];
    model->bytes = take(&at, end, model->count);
    for (int k = 0; k < model->input_count; k++) model->inputs[k].bytes = take(&at, end, model->inputs[k].count);
  }
  if (!job.library || !job.cpus || job.threads < 1 || job.min_rounds < 1) give_up("the job is incomplete");
  if (job.anchors < 0 || job.anchors > MAX_ANCHORS || job.anchors > job.model_count) give_up("the job has %ld anchors", job.anchors);
  job.has_cpu_time = job.threads == 1 && !strcmp(job.provider, "cpu");
  return job;
}

void require_host(const Job *job) {
  if (getppid() != job->parent) give_up("the host is gone");
  if (access(job->path, F_OK) && errno == ENOENT) give_up("the job was taken back");
}
