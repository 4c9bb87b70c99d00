// Load engine: one burst of contiguous bytes from memory into a buffer. Beats are gathered into words of the buffer's width.
// Buffers: 0 inputs (one lane group of a word), 1 weights, 2 requantisation parameters, 3 residual.
module loader #(
    parameter BUS = 8,  // bytes per beat
    parameter ROWS = 8,
    parameter COLS = 8,
    parameter GATHER = 48  // bytes of the widest word
) (
    input wire clk,
    input wire start,
    input wire [255:0] instruction,
    output reg done,
    output reg read_valid,
    input wire read_ready,
    output reg [31:0] read_address,
    output reg [15:0] read_beats,
    input wire data_valid,
    input wire [BUS*8-1:0] data,
    output reg [3:0] write,  // one of the buffers
    output reg [15:0] write_address,
    output reg [7:0] write_group,
    output reg [GATHER*8-1:0] word  // its last bytes are the newest
);
  reg [1:0] buffer;
  reg [15:0] left;
  reg [7:0] beat, last;
  always @(posedge clk) begin
    done  <= data_valid && left == 1;
    write <= 4'b0;
    if (start) begin
      buffer <= instruction[17:16];
      write_group <= instruction[31:24];
      read_address <= instruction[63:32];
      read_beats <= instruction[79:64];
      left <= instruction[79:64];
      write_address <= instruction[111:96];
      case (instruction[17:16])
        2'd0: last <= COLS / BUS - 1;
        2'd1: last <= ROWS / BUS - 1;
        2'd2: last <= 5;
        default: last <= 0;
      endcase
      beat <= 0;
      read_valid <= 1'b1;
    end else begin
      if (read_ready) read_valid <= 1'b0;
      if (write != 0) write_address <= write_address + 1'b1;
      if (data_valid) begin
        word <= {data, word[GATHER*8-1:BUS*8]};
        left <= left - 1'b1;
        beat <= beat == last ? 8'd0 : beat + 1'b1;
        if (beat == last) write[buffer] <= 1'b1;
      end
    end
  end
endmodule
