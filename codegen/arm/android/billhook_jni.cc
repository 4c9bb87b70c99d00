// The Java side of a compiled network: org.billhook.Network calls these. EMITTED, NOT LINKED by Billhook.

#include <jni.h>

#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "model.h"

namespace {

struct Loaded {
  billhook::Model model;
  std::vector<std::int64_t> shape;  // of the one input
};

void Throw(JNIEnv* env, const std::exception& error) { env->ThrowNew(env->FindClass("java/lang/IllegalStateException"), error.what()); }

}  // namespace

extern "C" JNIEXPORT jlong JNICALL Java_org_billhook_Network_load(JNIEnv* env, jclass, jstring library, jlongArray shape) {
  try {
    const char* path = env->GetStringUTFChars(library, nullptr);
    const std::string name(path);
    env->ReleaseStringUTFChars(library, path);
    std::vector<jlong> sizes(static_cast<std::size_t>(env->GetArrayLength(shape)));
    env->GetLongArrayRegion(shape, 0, static_cast<jsize>(sizes.size()), sizes.data());
    auto loaded = std::make_unique<Loaded>(Loaded{billhook::Model(name), {sizes.begin(), sizes.end()}});
    return reinterpret_cast<jlong>(loaded.release());
  } catch (const std::exception& error) {
    Throw(env, error);
    return 0;
  }
}

extern "C" JNIEXPORT jfloatArray JNICALL Java_org_billhook_Network_run(JNIEnv* env, jclass, jlong handle, jfloatArray input) {
  try {
    const auto* loaded = reinterpret_cast<const Loaded*>(handle);
    billhook::ffi::Tensor given = billhook::Empty(loaded->shape, "float32");
    const jsize count = env->GetArrayLength(input);
    if (count != static_cast<jsize>(given.numel())) throw std::invalid_argument("the input has another number of elements");
    env->GetFloatArrayRegion(input, 0, count, static_cast<jfloat*>(given.data_ptr()));
    const billhook::ffi::Tensor found = loaded->model.Run({given}).at(0);
    jfloatArray result = env->NewFloatArray(static_cast<jsize>(found.numel()));
    env->SetFloatArrayRegion(result, 0, static_cast<jsize>(found.numel()), static_cast<const jfloat*>(found.data_ptr()));
    return result;
  } catch (const std::exception& error) {
    Throw(env, error);
    return nullptr;
  }
}

extern "C" JNIEXPORT void JNICALL Java_org_billhook_Network_free(JNIEnv*, jclass, jlong handle) { delete reinterpret_cast<Loaded*>(handle); }
