package org.billhook;

/** A compiled network with one float input and one float output. Not to be used from two threads at once. */
public final class Network implements AutoCloseable {
  static {
    System.loadLibrary("billhook_jni");
  }

  private long handle;

  /** library: path of libmodel.so in the app's native library folder; shape: of the input. */
  public Network(String library, long[] shape) {
    handle = load(library, shape);
  }

  /** The output for an input in row-major order. */
  public float[] run(float[] input) {
    return run(handle, input);
  }

  @Override
  public void close() {
    free(handle);
    handle = 0;
  }

  private static native long load(String library, long[] shape);

  private static native float[] run(long handle, float[] input);

  private static native void free(long handle);
}
