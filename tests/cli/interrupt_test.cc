// Ctrl-C and SIGTERM at any time: exit 130 soon, nothing half-written, training resumable.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>

#include "base/json.h"
#include "program.h"

namespace instruct::test {
namespace {

using testing::AnyOf;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;

using Words = std::vector<std::string>;

class Signals : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Both, Signals, testing::Values(SIGINT, SIGTERM),
                         [](const auto& signal) { return signal.param == SIGINT ? "Int" : "Term"; });

std::string many_rows(const Folder& folder) {
  std::string rows;
  for (int i = 0; i < 200; ++i) rows += content_of(golden_rows());
  return folder.write("many.jsonl", rows);
}

TEST_P(Signals, TrainingSavesACheckpointAndGoesOn) {
  const Folder folder;
  const Words train{"train",        "--model",     golden_model(), "--dataset",       golden_rows(), "--output_dir",
                    folder / "run", "--max_steps", "3000",         "--save_strategy", "no"};
  Process process(train, {});
  ASSERT_TRUE(process.wait_until([&] {
    return std::filesystem::exists(folder / "run/trainer_log.jsonl") &&
           !content_of(folder / "run/trainer_log.jsonl").empty();
  })) << process.finish().err;
  process.signal(GetParam());
  const Outcome outcome = process.finish();
  EXPECT_EQ(outcome.code, 130);
  EXPECT_THAT(outcome.err, HasSubstr("continue with --resume_from_checkpoint auto"));
  EXPECT_THAT(folder.names("run"), Contains(HasSubstr("checkpoint-")));
  Words again = train;
  again[8] = "1";
  again.insert(again.end(), {"--resume_from_checkpoint", "auto"});
  const Outcome resumed = run(again);
  EXPECT_EQ(resumed.code, 0);
  EXPECT_THAT(resumed.err, HasSubstr("Resuming from"));
}

TEST_P(Signals, WorkOnRowsStops) {
  const Folder folder;
  const std::string rows = many_rows(folder);
  for (const Words& words : {Words{"score", "--model", golden_model(), "--data", rows, "--separate"},
                             Words{"eval", "--model", golden_model(), "--data", rows, "--max-new-tokens", "400",
                                   "--output", folder / "out"}}) {
    Process process(words, {});
    ASSERT_TRUE(process.wait_until([&] { return process.messages().find(" 0/1400 rows") != std::string::npos; }));
    process.signal(GetParam());
    const Outcome outcome = process.finish();
    EXPECT_EQ(outcome.code, 130) << words.front() << ": " << outcome.err;
    EXPECT_THAT(outcome.out, IsEmpty());
    EXPECT_THAT(outcome.err, HasSubstr("was stopped"));
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "out/results.json"));
}

TEST_P(Signals, WaitingForInputStops) {
  const Folder folder;
  const std::string set = write_set(folder);
  for (const Words& words : {Words{"run", "--model", golden_model(), "--instructions", set},
                             Words{"tokenize", "--model", golden_model()}, Words{"chat", "--model", golden_model()}}) {
    Process process(words, {.input = std::nullopt});
    ASSERT_TRUE(process.wait_until([&] { return process.handles(GetParam()); }));
    process.wait_until([count = 0]() mutable { return ++count > 50; });  // about 100 ms: most often it waits by then
    process.signal(GetParam());
    const Outcome outcome = process.finish();
    EXPECT_EQ(outcome.code, 130) << words.front() << ": " << outcome.err;
  }
}

TEST_P(Signals, ExportLeavesTheOldFile) {
  const Folder folder;
  const std::string file = folder.write("m.gguf", "old");
  // Whenever the signal comes, the file is the old one or a whole new one, and no other is left.
  for (int turn = 0; turn < 6; ++turn) {
    Process process({"export", "--model", golden_model(), "--format", "gguf", "--output", file, "--overwrite"}, {});
    process.wait_until([count = 0, turn]() mutable { return ++count > turn * 2; });
    process.signal(GetParam());
    EXPECT_THAT(process.finish().code, AnyOf(0, 130, 128 + GetParam()));
    EXPECT_THAT(folder.names(), testing::ElementsAre("m.gguf"));
    const std::string content = content_of(file);
    EXPECT_TRUE(content == "old" || run({"inspect", file}).code == 0);
  }
}

}  // namespace
}  // namespace instruct::test
