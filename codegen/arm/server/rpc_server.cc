// TVM's RPC server in one file, for boards and phones: joins a tracker under a key and serves one client after the other.
//
//   rpc_server --tracker HOST:PORT --key KEY --processor cortex-a76 [--port N] [--address HOST] [--sessions N]
//
// It needs the two runtime libraries and no Python. Each client gets a process of its own, in a folder of its own, which ends when the
// client goes or its time is up: a kernel that crashes takes only that process with it. --processor is what the device answers when it
// is asked what code to make for it. TVM's protocol has no passwords: use it in a network of your own.

#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/string.h>

#include <arpa/inet.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>

namespace {

namespace ffi = tvm::ffi;

constexpr std::int32_t kServerMagic = 0xFF271, kTrackerMagic = 0x2F271, kMismatch = kServerMagic + 2;
constexpr int kPut = 3, kUpdateInfo = 5, kPendingKeys = 7;
constexpr int kPingMilliseconds = 2000;
constexpr int kUnmatched = 3;  // pings after which a key that somebody took but did not use is replaced
constexpr std::int32_t kLongest = 1 << 20;

struct Options {
  std::string tracker_host, key, processor = "generic", address;
  int tracker_port = 0, port = 9090, sessions = 0;
};

// A socket that is closed with the object; every read and write is whole or an error.
class Connection {
 public:
  explicit Connection(int handle) : handle_(handle) {}
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() {
    if (handle_ >= 0) close(handle_);
  }

  int handle() const { return handle_; }

  void Send(const void* data, std::size_t size) const {
    for (std::size_t done = 0; done < size;) {
      const ssize_t part = send(handle_, static_cast<const char*>(data) + done, size - done, MSG_NOSIGNAL);
      if (part <= 0) throw std::runtime_error("the connection broke while sending");
      done += static_cast<std::size_t>(part);
    }
  }

  void Receive(void* data, std::size_t size) const {
    for (std::size_t done = 0; done < size;) {
      const ssize_t part = recv(handle_, static_cast<char*>(data) + done, size - done, 0);
      if (part <= 0) throw std::runtime_error("the connection broke while receiving");
      done += static_cast<std::size_t>(part);
    }
  }

  void SendNumber(std::int32_t number) const { Send(&number, sizeof number); }  // little-endian, as the processors meant here are

  std::int32_t ReceiveNumber() const {
    std::int32_t number = 0;
    Receive(&number, sizeof number);
    return number;
  }

  void SendText(const std::string& text) const {
    SendNumber(static_cast<std::int32_t>(text.size()));
    Send(text.data(), text.size());
  }

  std::string ReceiveText() const {
    const std::int32_t size = ReceiveNumber();
    if (size < 0 || size > kLongest) throw std::runtime_error("a message of an impossible length");
    std::string text(static_cast<std::size_t>(size), '\0');
    Receive(text.data(), text.size());
    return text;
  }

 private:
  int handle_;
};

int Connect(const std::string& host, int port) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) throw std::runtime_error("unknown host " + host);
  int handle = -1;
  for (addrinfo* at = found; at != nullptr && handle < 0; at = at->ai_next) {
    handle = socket(at->ai_family, at->ai_socktype, at->ai_protocol);
    if (handle >= 0 && connect(handle, at->ai_addr, at->ai_addrlen) != 0) {
      close(handle);
      handle = -1;
    }
  }
  freeaddrinfo(found);
  if (handle < 0) throw std::runtime_error("no tracker answers at " + host + ":" + std::to_string(port));
  return handle;
}

int Listen(int port) {
  const int handle = socket(AF_INET, SOCK_STREAM, 0);
  const int yes = 1;
  setsockopt(handle, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  sockaddr_in here{};
  here.sin_family = AF_INET;
  here.sin_addr.s_addr = htonl(INADDR_ANY);
  here.sin_port = htons(static_cast<std::uint16_t>(port));
  if (handle < 0 || bind(handle, reinterpret_cast<sockaddr*>(&here), sizeof here) != 0 || listen(handle, 4) != 0) {
    throw std::invalid_argument("port " + std::to_string(port) + " cannot be listened on; choose another with --port");
  }
  return handle;
}

std::string Quoted(const std::string& text) { return text.empty() ? "null" : "\"" + text + "\""; }

// What the tracker is told, and what it answers.
class Tracker {
 public:
  explicit Tracker(const Options& options) : options_(options), connection_(Connect(options.tracker_host, options.tracker_port)) {
    connection_.SendNumber(kTrackerMagic);
    if (connection_.ReceiveNumber() != kTrackerMagic) throw std::runtime_error("what answers is no TVM tracker");
    const std::string place = "[" + Quoted(options.address) + "," + std::to_string(options.port) + "]";
    Tell("[" + std::to_string(kUpdateInfo) + ",{\"key\":\"server:" + options.key + "\",\"addr\":" + place + "}]");
  }

  void Offer(const std::string& match) {
    const std::string place = "[" + std::to_string(options_.port) + ",\"" + match + "\"]";
    Tell("[" + std::to_string(kPut) + ",\"" + options_.key + "\"," + place + "," + Quoted(options_.address) + "]");
  }

  bool Pending(const std::string& match) {
    return Ask("[" + std::to_string(kPendingKeys) + "]").find("\"" + match + "\"") != std::string::npos;
  }

 private:
  std::string Ask(const std::string& message) {
    connection_.SendText(message);
    return connection_.ReceiveText();
  }

  void Tell(const std::string& message) {
    const std::string reply = Ask(message);
    if (reply != "0") throw std::runtime_error("the tracker answers " + reply + " to " + message);
  }

  const Options& options_;
  Connection connection_;
};

std::string FreshKey(const std::string& key) {
  std::random_device random;
  return key + ":0." + std::to_string(random()) + std::to_string(random());
}

// The functions that a session calls on the device. The session's folder is the current one.
void RegisterFunctions(const std::string& processor) {
  ffi::Function::SetGlobal("tvm.rpc.server.workpath", ffi::Function::FromTyped([](const ffi::String& name) {
                             return ffi::String(std::filesystem::absolute(std::filesystem::path(name.c_str()).filename()).string());
                           }));
  ffi::Function::SetGlobal("tvm.rpc.server.load_module", ffi::Function::FromTyped([](const ffi::String& name) {
                             const auto path = std::filesystem::absolute(std::filesystem::path(name.c_str()).filename());
                             return ffi::Module::LoadFromFile(path.string());
                           }));
  ffi::Function::SetGlobal("target.llvm_get_system_cpu", ffi::Function::FromTyped([processor]() { return ffi::String(processor); }));
  ffi::Function::SetGlobal("target.llvm_get_system_triple", ffi::Function::FromTyped([]() {
#if defined(__aarch64__)
                             return ffi::String("aarch64-unknown-linux-gnu");
#else
                             return ffi::String("x86_64-unknown-linux-gnu");
#endif
                           }));
}

double SecondsAllowed(const std::string& greeting) {
  const std::string option = "-timeout=";
  const auto at = greeting.find(option);
  return at == std::string::npos ? 0 : std::strtod(greeting.c_str() + at + option.size(), nullptr);
}

// Serves one client in a child process and waits for its end, or for the end of its time.
void Serve(int client, double seconds) {
  std::filesystem::path folder = std::filesystem::temp_directory_path() / "billhook-XXXXXX";
  std::string name = folder.string();
  if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no folder can be made in " + folder.parent_path().string());
  const pid_t child = fork();
  if (child == 0) {
    int status = 1;
    try {
      std::filesystem::current_path(name);
      ffi::Function::GetGlobalRequired("rpc.ServerLoop")(client);
      status = 0;
    } catch (const std::exception& error) {
      std::fprintf(stderr, "session: %s\n", error.what());
    }
    _exit(status);
  }
  const auto begun = std::chrono::steady_clock::now();
  int status = 0;
  while (child > 0 && waitpid(child, &status, WNOHANG) == 0) {
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begun;
    if (seconds > 0 && elapsed.count() > seconds) {
      const std::string text = "RPCSessionTimeoutError: Your " + std::to_string(seconds) + "s session has expired";
      ffi::Function::GetGlobalRequired("rpc.ReturnException")(client, text);
      kill(child, SIGKILL);
      waitpid(child, &status, 0);
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  std::error_code ignored;
  std::filesystem::remove_all(name, ignored);
}

// The next client that proves to have been sent by the tracker, its greeting in `greeting`; nothing if somebody else called.
int Accept(int listener, const Options& options, const std::string& match, std::string* greeting) {
  const int client = accept(listener, nullptr, nullptr);
  if (client < 0) return -1;
  const timeval patience{5, 0};
  setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  try {
    Connection connection(dup(client));
    if (connection.ReceiveNumber() == kServerMagic) {
      *greeting = connection.ReceiveText();
      if (greeting->substr(0, greeting->find(' ')) == "client:" + match) {
        connection.SendNumber(kServerMagic);
        connection.SendText("server:" + options.key);
        const timeval forever{0, 0};
        setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &forever, sizeof forever);
        return client;
      }
      connection.SendNumber(kMismatch);
    }
  } catch (const std::runtime_error&) {
  }
  close(client);
  return -1;
}

// Offers this server to the tracker until a client comes, and serves it.
void ServeOne(int listener, Tracker* tracker, const Options& options) {
  std::string match = FreshKey(options.key), greeting;
  tracker->Offer(match);
  for (int unmatched = 0;;) {
    pollfd waiting{listener, POLLIN, 0};
    if (poll(&waiting, 1, kPingMilliseconds) > 0) {
      const int client = Accept(listener, options, match, &greeting);
      if (client < 0) continue;
      Serve(client, SecondsAllowed(greeting));
      close(client);
      return;
    }
    unmatched = tracker->Pending(match) ? 0 : unmatched + 1;
    if (unmatched > kUnmatched) {
      match = FreshKey(options.key);
      tracker->Offer(match);
      unmatched = 0;
    }
  }
}

Options Parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i], value = argv[i + 1];
    if (name == "--tracker") {
      const auto colon = value.rfind(':');
      if (colon == std::string::npos) throw std::invalid_argument("--tracker " + value + ": HOST:PORT is needed");
      options.tracker_host = value.substr(0, colon);
      options.tracker_port = std::atoi(value.c_str() + colon + 1);
    } else if (name == "--key") {
      options.key = value;
    } else if (name == "--processor") {
      options.processor = value;
    } else if (name == "--address") {
      options.address = value;
    } else if (name == "--port") {
      options.port = std::atoi(value.c_str());
    } else if (name == "--sessions") {
      options.sessions = std::atoi(value.c_str());
    } else {
      throw std::invalid_argument(name + ": unknown option");
    }
  }
  if (options.key.empty() || options.tracker_port <= 0 || options.port <= 0 || argc % 2 == 0) {
    throw std::invalid_argument("usage: rpc_server --tracker HOST:PORT --key KEY [--processor NAME] [--port N] [--address HOST] [--sessions N]");
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Options options = Parse(argc, argv);
    RegisterFunctions(options.processor);
    const int listener = Listen(options.port);
    for (int served = 0; options.sessions == 0 || served < options.sessions;) {
      try {
        Tracker tracker(options);
        for (; options.sessions == 0 || served < options.sessions; ++served) ServeOne(listener, &tracker, options);
      } catch (const std::runtime_error& error) {
        std::fprintf(stderr, "%s; trying again\n", error.what());
        std::this_thread::sleep_for(std::chrono::seconds(2));
      }
    }
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
