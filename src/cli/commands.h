// One function a subcommand: declares its options on the application and the work to do when it is chosen.
#pragma once

namespace CLI {
class App;
}

namespace instruct::cli {

void add_bench_command(CLI::App& app);
void add_chat_command(CLI::App& app);
void add_data_command(CLI::App& app);
void add_embed_command(CLI::App& app);
void add_eval_command(CLI::App& app);
void add_export_command(CLI::App& app);
void add_inspect_command(CLI::App& app);
void add_metrics_command(CLI::App& app);
void add_run_command(CLI::App& app);
void add_score_command(CLI::App& app);
void add_tokenize_command(CLI::App& app);
void add_train_command(CLI::App& app);

}  // namespace instruct::cli
