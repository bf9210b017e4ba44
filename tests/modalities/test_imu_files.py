import numpy as np
import pytest
from file_makers import csv, motion

from onellm.modalities import MODALITIES, load

IMU = MODALITIES["imu"]
ROWS = motion()
SECONDS = np.arange(200) / 50
G, DEG = 9.80665, 180 / np.pi
IN_G_AND_DEG = np.c_[ROWS[:, :3] / G, ROWS[:, 3:] * DEG]

HEADERS = [
    ("time_ms,acc_x_g,acc_y_g,acc_z_g,gyr_x_deg,gyr_y_deg,gyr_z_deg", np.c_[SECONDS * 1e3, IN_G_AND_DEG]),
    ("t,ax [m/s^2],ay [m/s^2],az [m/s^2],gx [rad/s],gy [rad/s],gz [rad/s]", np.c_[SECONDS, ROWS]),
    ("Time (s),Acceleration x (m/s^2),Acceleration y (m/s^2),Acceleration z (m/s^2),"
     "Gyroscope x (rad/s),Gyroscope y (rad/s),Gyroscope z (rad/s)", np.c_[SECONDS, ROWS]),
    ("timestamp,accel_x,accel_y,accel_z,gyro_x,gyro_y,gyro_z", np.c_[1.7e9 + SECONDS, ROWS]),
    ("timestamp [us],AccX(g),AccY(g),AccZ(g),GyrX(dps),GyrY(dps),GyrZ(dps)",
     np.c_[SECONDS * 1e6, IN_G_AND_DEG]),
    ("gyro_x_rad_s,gyro_y_rad_s,gyro_z_rad_s,acc_x_m_s2,acc_y_m_s2,acc_z_m_s2,time_ns",
     np.c_[ROWS[:, 3:], ROWS[:, :3], SECONDS * 1e9]),
    ("time,accelerometerX,accelerometerY,accelerometerZ,rotationRate.x,rotationRate.y,rotationRate.z,label",
     np.c_[SECONDS, ROWS, np.zeros(200)]),
    ("seconds_elapsed,acc.x,acc.y,acc.z,angular_velocity_x,angular_velocity_y,angular_velocity_z",
     np.c_[SECONDS, ROWS]),
]  # fmt: skip


@pytest.mark.parametrize(("header", "table"), HEADERS)
def test_spellings_of_headers(tmp_path, header, table):
    sample = load("imu", csv(tmp_path / "a.csv", header, table))
    assert sample.array.shape == (200, 6) and sample.array.dtype == np.float32
    assert np.abs(sample.array - ROWS).max() < 1e-3
    assert abs(sample.rate_hz - 50) < 0.01
    assert sample.summary == "4.0 s, 200 rows at 50 Hz"


def test_no_header(tmp_path):
    sample = load("imu", csv(tmp_path / "a.csv", None, ROWS))
    assert np.abs(sample.array - ROWS).max() < 1e-3 and sample.rate_hz == 50
    assert any("50 Hz was assumed" in note for note in sample.notes)
    sample = load("imu", csv(tmp_path / "b.csv", None, np.c_[SECONDS * 2, ROWS]))
    assert abs(sample.rate_hz - 25) < 0.01


@pytest.mark.parametrize("separator", [";", "\t", " "])
def test_separators(tmp_path, separator):
    header = separator.join(["ax", "ay", "az", "gx", "gy", "gz"])
    assert np.abs(load("imu", csv(tmp_path / "a.csv", header, ROWS, separator)).array - ROWS).max() < 1e-3


def test_decimal_commas_and_byte_order_mark(tmp_path):
    lines = ["ax;ay;az;gx;gy;gz"] + [";".join(f"{v:.4f}".replace(".", ",") for v in row) for row in ROWS]
    (tmp_path / "a.csv").write_text("\ufeff" + "\r\n".join(lines))
    assert np.abs(load("imu", tmp_path / "a.csv").array - ROWS).max() < 1e-3


def test_units_are_guessed_from_gravity_or_given(tmp_path):
    path = csv(tmp_path / "a.csv", "ax,ay,az,gx,gy,gz", IN_G_AND_DEG)
    sample = load("imu", path)
    assert abs(np.median(np.linalg.norm(sample.array[:, :3], axis=1)) - 9.8) < 0.3
    assert any("g was assumed" in note for note in sample.notes)
    sample = load("imu", path, acc_unit="g", gyro_unit="deg/s", rate_hz=100)
    assert np.abs(sample.array - ROWS).max() < 1e-3 and sample.rate_hz == 100 and not sample.notes


def test_numpy_files(tmp_path):
    np.save(tmp_path / "rows.npy", ROWS)
    np.save(tmp_path / "columns.npy", ROWS.T.astype(np.float32))
    np.save(tmp_path / "time.npy", np.c_[SECONDS, ROWS])
    np.savez(tmp_path / "a.npz", acc=ROWS[:, :3], gyro=ROWS[:, 3:].T, rate_hz=100)
    np.savez(tmp_path / "b.npz", imu=ROWS, t=SECONDS)
    for name in ("rows.npy", "columns.npy", "time.npy", "a.npz", "b.npz"):
        sample = load("imu", tmp_path / name)
        assert np.abs(sample.array - ROWS).max() < 1e-3, name
        assert abs(sample.rate_hz - (100 if name == "a.npz" else 50)) < 0.01


def test_uneven_times_are_evened_out(tmp_path):
    keep = np.sort(np.random.default_rng(0).choice(200, 170, replace=False))
    table = np.c_[SECONDS, ROWS][keep]
    sample = load("imu", csv(tmp_path / "a.csv", "t,ax,ay,az,gx,gy,gz", table))
    assert any("evened out" in note for note in sample.notes)
    assert abs(sample.rate_hz - 50) < 0.01 and abs(len(sample.array) - 200) < 5
    assert np.abs(sample.array[100] - ROWS[100 + keep[0]]).max() < 0.05


def test_gaps_are_filled(tmp_path, refused):
    table = ROWS.copy()
    table[20:25, 2] = np.nan
    sample = load("imu", csv(tmp_path / "a.csv", "ax,ay,az,gx,gy,gz", table))
    assert np.isfinite(sample.array).all() and abs(float(sample.array[22, 2]) - 9.81) < 0.5
    assert any("5 incomplete rows" in note for note in sample.notes)
    table[10:] = np.nan
    refused("imu", csv(tmp_path / "a.csv", "ax,ay,az,gx,gy,gz", table), "10 of them complete")


def test_cut_last_row_is_left_out(tmp_path):
    path = csv(tmp_path / "a.csv", "ax,ay,az,gx,gy,gz", ROWS)
    path.write_text(path.read_text()[:-30])
    sample = load("imu", path)
    assert len(sample.array) == 199 and any("last row" in note for note in sample.notes)


def test_to_tensor_resamples_cuts_and_pads(tmp_path):
    np.savez(tmp_path / "a.npz", acc=ROWS[:, :3], gyro=ROWS[:, 3:], rate_hz=50)
    sample = load("imu", tmp_path / "a.npz")
    tensor = IMU.to_tensor(sample)
    assert tensor.shape == (6, 128) and np.abs(tensor.numpy().T - ROWS[:128]).max() < 1e-4
    assert np.abs(IMU.to_tensor(sample, unit="g").numpy()[:3].T * G - ROWS[:128, :3]).max() < 1e-3
    fine = motion(800, 200.0)
    published = IMU.to_tensor(sample, rate_hz=200, length=400).numpy()
    assert published.shape == (6, 400) and np.abs(published.T[20:380] - fine[20:380]).max() < 0.02
    coarse = IMU.to_tensor(sample, rate_hz=25, length=128).numpy()
    assert (coarse[:, 100:] == 0).all() and np.abs(coarse[:, 10:90].T - ROWS[20:180:2]).max() < 0.02


def test_errors(tmp_path, refused):
    refused("imu", csv(tmp_path / "a.csv", "ax,ay,az,gx,gy,temperature", ROWS), "no gyro_z", "name the columns")
    refused("imu", csv(tmp_path / "a.csv", None, ROWS[:, :5]), "5 columns without names")
    refused("imu", csv(tmp_path / "a.csv", "ax,ay,az,gx,gy,gz", []), "a header without rows")
    (tmp_path / "a.csv").write_text("ax,ay,az,gx,gy,gz\n1,2,3,4,5,6\n1,2,3\n1,2,3,4,5,6\n")
    refused("imu", tmp_path / "a.csv", "row 2 has 3 columns")
    (tmp_path / "a.csv").write_text("ax,ay,az,gx,gy,gz\n" + "1,2,3,4,5,six\n" * 5)
    refused("imu", tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("1,2,3,4,5,6\n" * 100_002)
    refused("imu", tmp_path / "a.csv", "at most 100,000")
    back = np.c_[SECONDS[::-1], ROWS]
    refused("imu", csv(tmp_path / "a.csv", "t,ax,ay,az,gx,gy,gz", back), "times that do not rise")
    np.save(tmp_path / "a.npy", np.zeros((10, 5)))
    refused("imu", tmp_path / "a.npy", "[10, 5]", "[T, 6]")
    np.savez(tmp_path / "a.npz", acc=ROWS[:, :3], gyro=ROWS[:10, 3:])
    refused("imu", tmp_path / "a.npz", "both [T, 3]")
    good = csv(tmp_path / "a.csv", "ax,ay,az,gx,gy,gz", ROWS)
    refused("imu", good, "the option acc_unit is 'lbs'", acc_unit="lbs")
    refused("imu", good, "the option rate_hz", rate_hz=-1)


def test_preview_has_two_panes():
    from onellm.modalities.base import Sample

    figure = IMU.preview(Sample("imu", "a.csv", np.zeros((90000, 6), np.float32), "", 50.0)).content
    assert len(figure.data) == 6 and len(figure.to_json()) < 1_000_000


@pytest.mark.parametrize("separator", [";", "\t", " "])
@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("whole", [0, 100, 199])
def test_decimal_commas_are_told_from_all_rows(tmp_path, separator, header, whole):
    rows = [separator.join(f"{v:.4f}".replace(".", ",") for v in row) for row in ROWS]
    rows[whole] = separator.join(["1"] * 6)
    lines = [separator.join(["ax", "ay", "az", "gx", "gy", "gz"])] * header + rows
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    expected = ROWS.copy()
    expected[whole] = 1
    assert np.abs(load("imu", tmp_path / "a.csv").array - expected).max() < 1e-3
