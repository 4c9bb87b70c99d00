// Store engine: accumulators to int8. out = clamp((((acc + bias) * multiplier + (residual * rm << rs) + half) >> shift), low, high),
// one beat of channels per cycle, written row by row.
module storer #(
    parameter BUS = 8,
    parameter COLS = 8,
    parameter ACC_AW = 8,
    parameter RES_AW = 8,
    parameter PAR_AW = 4
) (
    input wire clk,
    input wire start,
    input wire [255:0] instruction,
    output reg done,
    output reg bank,
    output wire read,
    output wire [ACC_AW-1:0] acc_address,
    input wire [COLS*32-1:0] acc_word,
    output wire [RES_AW-1:0] res_address,
    input wire [BUS*8-1:0] res_word,
    output wire [PAR_AW-1:0] par_address,
    input wire [BUS*48-1:0] par_word,
    output reg write_valid,
    input wire write_ready,
    output reg [31:0] write_address,
    output reg [15:0] write_beats,
    output reg data_valid,
    input wire data_ready,
    output reg [BUS*8-1:0] data,
    input wire acknowledged
);
  localparam PARTS = COLS / BUS;
  localparam IDLE = 2'd0, ROW = 2'd1, DATA = 2'd2, WAIT = 2'd3;
  reg [1:0] state;
  reg residual;
  reg [31:0] pitch;
  reg [15:0] last_x, last_y, x, y, pending;
  reg [5:0] shift;
  reg [4:0] res_shift;
  reg signed [7:0] low, high;
  reg [15:0] res_pitch, res_base, res_place;
  reg [15:0] res_multiplier;
  reg [PAR_AW-1:0] par_base;
  reg [ACC_AW-1:0] place;
  reg [7:0] part;
  reg signed [55:0] half;
  wire advance = !data_valid || data_ready;
  wire issue = state == DATA;
  assign read = advance;
  assign acc_address = place;
  assign res_address = res_place[RES_AW-1:0];
  assign par_address = par_base + part[PAR_AW-1:0];

  always @(posedge clk) begin
    done <= 1'b0;
    if (start) begin
      state <= ROW;
      bank <= instruction[16];
      residual <= instruction[17];
      write_address <= instruction[63:32];
      pitch <= instruction[95:64];
      last_x <= instruction[111:96];
      last_y <= instruction[127:112];
      shift <= instruction[133:128];
      res_shift <= instruction[140:136];
      low <= instruction[151:144];
      high <= instruction[159:152];
      res_base <= instruction[175:160];
      res_place <= instruction[175:160];
      res_pitch <= instruction[191:176];
      res_multiplier <= instruction[207:192];
      par_base <= instruction[208+:PAR_AW];
      write_beats <= instruction[239:224];
      half <= 56'sd1 <<< (instruction[133:128] - 1'b1);
      {x, y, part} <= 0;
      place <= 0;
      write_valid <= 1'b1;
    end else
      case (state)
        ROW:
        if (write_ready) begin
          write_valid <= 1'b0;
          state <= DATA;
        end
        DATA:
        if (advance) begin
          res_place <= res_place + 1'b1;
          if (part != PARTS - 1) part <= part + 1'b1;
          else begin
            part  <= 0;
            place <= place + 1'b1;
            if (x != last_x) x <= x + 1'b1;
            else begin
              x <= 0;
              y <= y + 1'b1;
              res_base <= res_base + res_pitch;
              res_place <= res_base + res_pitch;
              write_address <= write_address + pitch;
              write_valid <= y != last_y;
              state <= y == last_y ? WAIT : ROW;
            end
          end
        end
        WAIT:
        if (pending == 0) begin
          state <= IDLE;
          done  <= 1'b1;
        end
        default: ;
      endcase
    pending <= start ? 16'd0 : pending + {15'b0, write_valid && write_ready} - {15'b0, acknowledged};
  end

  // word, biased, product, total, result
  reg [3:0] moving;
  reg [7:0] part1;
  always @(posedge clk) begin
    if (start) {moving, data_valid} <= 0;
    else if (advance) begin
      moving <= {moving[2:0], issue};
      part1 <= part;
      data_valid <= moving[3];
    end
  end
  genvar j;
  generate
    for (j = 0; j < BUS; j = j + 1) begin : lanes
      reg signed [31:0] biased;
      reg [15:0] multiplier;
      reg signed [7:0] res;
      reg signed [48:0] product;
      reg signed [24:0] res_product;
      reg signed [55:0] total;
      wire signed [31:0] acc = acc_word[(part1*BUS+j)*32+:32];
      wire signed [31:0] bias = par_word[j*32+:32];
      wire signed [55:0] shifted = total >>> shift;
      always @(posedge clk)
        if (advance) begin
          biased <= acc + bias;
          multiplier <= par_word[BUS*32+j*16+:16];
          res <= residual ? res_word[j*8+:8] : 8'sd0;
          product <= biased * $signed({1'b0, multiplier});
          res_product <= res * $signed({1'b0, res_multiplier});
          total <= product + (res_product <<< res_shift) + half;
          data[j*8+:8] <= shifted < low ? low : shifted > high ? high : shifted[7:0];
        end
    end
  endgenerate
endmodule
