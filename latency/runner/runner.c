/* Times ONNX models on the device it runs on, with an ONNX Runtime library that lies beside it. job.py writes what it is given and
 * reads what it leaves.
 *
 *   runner size FILE...                 a line "BYTES FILE" each (-1: not there), then "end"
 *   runner keep PART FILE SHA256        renames PART to FILE if it has that hash: "kept", or "damaged HASH"
 *   runner run JOB SHA256 RESULT S      does the job within S seconds: "done", and a file whose last line is "end" and its own hash;
 *                                       removing JOB ends it without one
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "text.h"
#include "timing.h"

enum { MASK_BYTES = 1024, MAX_MODELS = 1024, CRASHED = 70 };

static volatile sig_atomic_t model_at_work = -1;

static void on_crash(int number) {
  char line[64];
  int length = snprintf(line, sizeof line, "runner: crashed at model %d by signal %d\n", (int)model_at_work, number);
  if (write(2, line, (size_t)length) < 0) _exit(CRASHED + 1);
  _exit(CRASHED);
}

static Text cpu_list(const unsigned char *mask) {
  Text text = {0};
  add(&text, "[");
  for (int i = 0, found = 0; i < MASK_BYTES * 8; i++)
    if (mask[i / 8] >> (i % 8) & 1) add(&text, "%s%d", found++ ? "," : "", i);
  add(&text, "]");
  return text;
}

/* Keeps this process on the cores "0,3,4"; 0, or 1 if they are not all allowed. Before ONNX Runtime makes its threads. */
static int pin(const char *cpus, const unsigned char *allowed) {
  unsigned char wanted[MASK_BYTES] = {0};
  for (const char *at = cpus; *at;) {
    char *end;
    long cpu = strtol(at, &end, 10);
    if (end == at || cpu < 0 || cpu >= MASK_BYTES * 8 || !(allowed[cpu / 8] >> (cpu % 8) & 1)) return 1;
    wanted[cpu / 8] |= (unsigned char)(1 << (cpu % 8));
    at = *end == ',' ? end + 1 : end;
  }
  return syscall(SYS_sched_setaffinity, 0, (size_t)MASK_BYTES, wanted) != 0;
}

/* Loads and runs every model once; 0 if all of them can be timed. */
static int prepare(Timed *models, const Job *job) {
  int failed = 0;
  for (int i = 0; i < job->model_count; i++) {
    model_at_work = i;
    require_host(job);
    load(&models[i].loaded, &job->models[i], job);
    if (!models[i].loaded.stage) first_run(&models[i].loaded);
    failed |= models[i].loaded.stage != NULL;
  }
  return failed;
}

static void time_all(Timed *models, const Job *job, Course *course) {
  for (int i = 0; i < job->model_count; i++) {
    model_at_work = i;
    models[i].is_anchor = i < job->anchors;
    if (warm_up(&models[i], job)) return;
  }
  model_at_work = -1;
  if (job->model_count) time_rounds(models, job->model_count, job, course);
}

static void report_rounds(Text *text, const char *name, const Timed *model, const int64_t *values) {
  add(text, ",\"%s\":[", name);
  for (long i = 0; i < model->runs; i++) {
    int starts = i == 0 || model->round_of[i] != model->round_of[i - 1];
    add(text, "%s%lld", !starts ? "," : i ? "],[" : "[", (long long)values[i]);
  }
  add(text, model->runs ? "]]" : "]");
}

static void report_list(Text *text, const char *name, const int *values, long count) {
  add(text, ",\"%s\":[", name);
  for (long i = 0; i < count; i++) add(text, "%s%d", i ? "," : "", values[i]);
  add(text, "]");
}

/* An anchor is told by its rounds' medians alone. */
static void report_anchor(Text *text, const Timed *model, const Job *job) {
  add(text, ",\"round_medians_ns\":[");
  for (long i = 0; i < model->rounds; i++) add(text, "%s%lld", i ? "," : "", (long long)round_median(model, i, job->has_cpu_time));
  add(text, "]");
}

static void report_outputs(Text *text, Text *data, Timed *model) {
  add(text, ",\"outputs\":[");
  for (size_t i = 0; i < model->loaded.output_count; i++) {
    Output output;
    if (read_output(&model->loaded, i, &output)) break;
    add(text, "%s{\"name\":", i ? "," : "");
    add_json(text, output.name);
    add(text, ",\"type\":\"%s\",\"bytes\":%zu,\"shape\":[", output.type, output.count);
    for (size_t k = 0; k < output.rank; k++) add(text, "%s%lld", k ? "," : "", (long long)output.shape[k]);
    add(text, "]}");
    add_bytes(data, output.bytes, output.count);
  }
  add(text, "]");
}

static void report_model(Text *text, Text *data, Timed *model, const Job *job) {
  add(text, "{\"load_ns\":%lld,\"first_run_ns\":%lld,\"warmup_ns\":%lld", (long long)model->loaded.load_ns,
      (long long)model->loaded.first_run_ns, (long long)model->warmup_ns);
  if (model->is_anchor) report_anchor(text, model, job);
  if (!model->is_anchor) report_rounds(text, "samples_ns", model, model->wall_ns);
  if (!model->is_anchor && job->has_cpu_time) report_rounds(text, "cpu_ns", model, model->cpu_ns);
  add(text, ",\"stopped\":\"%s\",\"anchor\":%d", model->stopped ? model->stopped : "", model->anchor);
  if (job->wants_outputs && !model->loaded.stage) report_outputs(text, data, model);
  add(text, ",\"stage\":\"%s\",\"problem\":", model->loaded.stage ? model->loaded.stage : "");
  add_json(text, model->loaded.problem ? model->loaded.problem : "");
  add(text, "}");
}

static void save(const char *path, Text *text, const Text *data) {
  char hash[65];
  add(text, "}\n");
  if (data->length) add_bytes(text, data->bytes, data->length);
  sha256(text->bytes, text->length, hash);
  add(text, "\nend %s\n", hash);
  int error = write_file(path, text);
  if (error) give_up("cannot write %s: %s", path, reason_for(error));
  dprintf(1, "done\n");
  _exit(0); /* ONNX Runtime's own clean-up has crashed on phones */
}

static int do_job(const char *path, const char *wanted_hash, const char *result) {
  int parent = getppid();
  size_t count = 0;
  char hash[65];
  unsigned char allowed[MASK_BYTES] = {0}, *bytes = read_file(path, &count);
  if (!bytes) give_up("cannot read %s", path);
  sha256(bytes, count, hash);
  if (strcmp(hash, wanted_hash)) give_up("%s is damaged: is there space left?", path);
  Job job = parse_job(bytes, count);
  job.parent = parent;
  job.path = path;
  if (job.model_count > MAX_MODELS) give_up("%d models in a job, at most %d", job.model_count, MAX_MODELS);
  Text text = {0}, data = {0};
  const char *version = "";
  struct timespec step = {0, 1};
  syscall(SYS_sched_getaffinity, 0, (size_t)MASK_BYTES, allowed);
  clock_getres(CLOCK_MONOTONIC, &step);
  add(&text, "{\"cpus\":%s,\"timer_ns\":%lld,\"hwcap\":[%lu,%lu]", cpu_list(allowed).bytes,
      (long long)step.tv_sec * 1000000000 + step.tv_nsec, getauxval(AT_HWCAP), getauxval(AT_HWCAP2));
  int refused = strcmp(job.cpus, "-") && pin(job.cpus, allowed);
  const char *unusable = refused ? NULL : open_runtime(&job, &version);
  const char *missing = refused || unusable ? NULL : missing_provider(job.provider);
  const char *why = refused ? "cpus" : unusable ? "library" : missing ? "provider" : "";
  add(&text, ",\"runtime\":\"%s\",\"refused\":\"%s\",\"problem\":", version, why);
  add_json(&text, unusable ? unusable : missing ? missing : "");
  Timed *models = room_for(sizeof *models * (size_t)job.model_count);
  Course course;
  begin_course(&course, &job);
  long idle_kib = memory_kib("VmRSS:");
  if (!*why && !prepare(models, &job) && !job.wants_outputs) time_all(models, &job, &course);
  add(&text, ",\"idle_kib\":%ld,\"peak_kib\":%ld", idle_kib, memory_kib("VmHWM:"));
  report_list(&text, "mhz", course.mhz, course.rounds);
  report_list(&text, "milli_c", course.milli_c, course.rounds);
  add(&text, ",\"pauses\":%ld,\"paused_ms\":%.0f,\"zones\":%d", course.pauses, course.paused_ms, course.zone_count);
  add(&text, ",\"models\":[");
  for (int i = 0; i < job.model_count; i++) {
    if (i) add(&text, ",");
    report_model(&text, &data, &models[i], &job);
  }
  add(&text, "]");
  require_host(&job);
  save(result, &text, &data);
  return 0;
}

static int keep_file(const char *part, const char *path, const char *wanted_hash) {
  size_t count = 0;
  char hash[65] = "none";
  unsigned char *bytes = read_file(part, &count);
  if (bytes) sha256(bytes, count, hash);
  if (strcmp(hash, wanted_hash)) dprintf(1, "damaged %s\n", hash);
  else if (rename(part, path)) give_up("cannot rename %s", part);
  else dprintf(1, "kept\n");
  return 0;
}

int main(int count, char **words) {
  const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
  for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++) signal(crashes[i], on_crash);
  if (count >= 2 && !strcmp(words[1], "size")) {
    for (int i = 2; i < count; i++) dprintf(1, "%lld %s\n", file_size(words[i]), words[i]);
    dprintf(1, "end\n");
    return 0;
  }
  if (count == 5 && !strcmp(words[1], "keep")) return keep_file(words[2], words[3], words[4]);
  if (count == 6 && !strcmp(words[1], "run")) {
    alarm((unsigned)atoi(words[5])); /* a runner whose host has gone must end too */
    return do_job(words[2], words[3], words[4]);
  }
  give_up("runner size FILE... | runner keep PART FILE SHA256 | runner run JOB SHA256 RESULT SECONDS");
}
