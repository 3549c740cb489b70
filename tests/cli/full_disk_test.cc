// Writing that fails halfway, as on a full disk: a clear message, nothing half-written, what was there stays.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "program.h"

namespace instruct::test {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

using Words = std::vector<std::string>;

constexpr std::int64_t kSmall = 20 << 10;  // less than a checkpoint or a model, more than a log

TEST(FullDisk, ExportLeavesWhatWasThere) {
  const Folder folder;
  const std::string file = folder.write("m.gguf", "the old one");
  for (const Words& format : {Words{"gguf", file}, Words{"hf", folder / "hf"}}) {
    const Outcome outcome = run({"export", "--model", golden_model(), "--format", format[0], "--quantize", "f32",
                                 "--output", format[1], "--overwrite"},
                                {.file_bytes = kSmall});
    EXPECT_EQ(outcome.code, 5) << outcome.err;
    EXPECT_THAT(outcome.err, AllOf(HasSubstr("cannot write"), HasSubstr("File too large")));
  }
  EXPECT_THAT(folder.names(), ElementsAre("m.gguf"));
  EXPECT_EQ(content_of(file), "the old one");
}

TEST(FullDisk, TrainingKeepsEarlierCheckpoints) {
  const Folder folder;
  const Words base{
      "train",        "--model", golden_model(),       "--dataset", golden_rows(), "--output_dir", folder / "run",
      "--save_steps", "2",       "--save_total_limit", "0"};
  const auto train = [&](const Words& more, const Setting& setting) {
    Words words = base;
    words.insert(words.end(), more.begin(), more.end());
    return run(words, setting);
  };
  ASSERT_EQ(train({"--max_steps", "2"}, {}).code, 0);
  const std::string before = content_of(folder / "run/checkpoint-2/optimizer.safetensors");
  const std::string adapter = content_of(folder / "run/adapter_model.safetensors");
  const Outcome outcome = train({"--max_steps", "6", "--resume_from_checkpoint", "auto"}, {.file_bytes = kSmall});
  EXPECT_EQ(outcome.code, 5) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("checkpoint-4"));
  EXPECT_EQ(content_of(folder / "run/checkpoint-2/optimizer.safetensors"), before);
  EXPECT_EQ(content_of(folder / "run/adapter_model.safetensors"), adapter);
  for (const std::string& name : folder.names("run")) EXPECT_FALSE(name.ends_with(".tmp")) << name;
  EXPECT_EQ(train({"--max_steps", "6", "--resume_from_checkpoint", "auto"}, {}).code, 0);
}

TEST(FullDisk, EvaluationStillPrintsItsResults) {
  const Folder folder;
  const Outcome outcome = run(
      {"eval", "--model", golden_model(), "--data", golden_rows(), "--max-new-tokens", "2", "--output", folder / "out"},
      {.file_bytes = 600});
  EXPECT_EQ(outcome.code, 5) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("rougeL"));
  EXPECT_THAT(outcome.err, HasSubstr("generated_predictions.jsonl"));
  EXPECT_THAT(folder.names("out"), IsEmpty());
}

TEST(FullDisk, ConvertAndShow) {
  const Folder folder;
  const std::string old = folder.write("out.jsonl", "old");
  EXPECT_EQ(run({"data", "convert", golden_rows(), old, "--to", "sharegpt", "--overwrite"}, {.file_bytes = 100}).code,
            5);
  EXPECT_EQ(content_of(old), "old");
  EXPECT_EQ(
      run({"data", "show", golden_rows(), "--model", golden_model(), "--html", folder / "x.html"}, {.file_bytes = 100})
          .code,
      5);
  EXPECT_THAT(folder.names(), ElementsAre("out.jsonl"));
}

TEST(FullDisk, StandardOutput) {
  const Outcome outcome =
      run({"score", "--model", golden_model(), "--data", golden_rows(), "--log-level", "off"}, {.file_bytes = 100});
  EXPECT_EQ(outcome.code, 5);
  EXPECT_THAT(outcome.err, HasSubstr("standard output"));
}

TEST(FullDisk, FoldersThatCannotBeMade) {
  const Folder folder;
  folder.write("file", "x");
  for (const Words& words :
       {Words{"export", "--model", golden_model(), "--format", "hf", "--output", folder / "file/hf"},
        Words{"eval", "--model", golden_model(), "--data", golden_rows(), "--output", folder / "file/out"},
        Words{"train", "--model", golden_model(), "--dataset", golden_rows(), "--output_dir", folder / "file/run"},
        Words{"data", "split", golden_rows(), "--output", folder / "file/parts"}}) {
    const Outcome outcome = run(words);
    EXPECT_EQ(outcome.code, 5) << words.front() << ": " << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(folder / "file")) << words.front();
  }
}

}  // namespace
}  // namespace instruct::test
