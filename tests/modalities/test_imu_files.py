import numpy as np
import pytest
from file_makers import csv, motion

from onellm.modalities import MODALITIES, load
from onellm.modalities.detect import recognise

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
    still = np.c_[np.zeros(200), ROWS]
    refused("imu", csv(tmp_path / "a.csv", "t,ax,ay,az,gx,gy,gz [dps]", still), "times that do not rise")
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


def turning(rows=300, rate_hz=50.0):
    """A device that turns about two axes in gravity, [T, 6] float64: what its sensors show, in m/s² and rad/s."""
    t = np.arange(rows) / rate_hz
    rates = np.stack([0.8 * np.sin(t), 0.5 * np.cos(1.3 * t), 0 * t], axis=1)
    down, acc = np.array([0.0, 0, G]), []
    for rate in rates:
        acc.append(down)
        down = down + np.cross(down, rate) / rate_hz
        down = down / np.linalg.norm(down) * G
    return np.c_[np.array(acc), rates]


TURNING = turning()
TURNING_S = np.arange(300) / 50
MOVED = np.c_[ROWS[:, :2], ROWS[:, 2] - 9.81]
DOWN = np.tile([0.0, 0, 9.81], (200, 1))
APPS = {
    "#timestamp [ns],w_RS_S_x [rad s^-1],w_RS_S_y [rad s^-1],w_RS_S_z [rad s^-1],"
    "a_RS_S_x [m s^-2],a_RS_S_y [m s^-2],a_RS_S_z [m s^-2]":
        np.c_[1.4e18 + SECONDS * 1e9, ROWS[:, 3:], ROWS[:, :3]],
    "%time,field.header.seq,field.angular_velocity.x,field.angular_velocity.y,field.angular_velocity.z,"
    "field.linear_acceleration.x,field.linear_acceleration.y,field.linear_acceleration.z":
        np.c_[1.6e18 + SECONDS * 1e9, np.arange(200), ROWS[:, 3:], ROWS[:, :3]],
    ",gravity.x,gravity.y,gravity.z,rotationRate.x,rotationRate.y,rotationRate.z,"
    "userAcceleration.x,userAcceleration.y,userAcceleration.z":
        np.c_[np.arange(200), DOWN / G, ROWS[:, 3:], MOVED / G],
    "Zeit (s);Beschleunigung x (m/s²);Beschleunigung y (m/s²);Beschleunigung z (m/s²);"
    "Drehrate x (°/s);Drehrate y (°/s);Drehrate z (°/s)": np.c_[SECONDS, ROWS[:, :3], ROWS[:, 3:] * DEG],
    "temps (s),accélération x (m/s²),accélération y (m/s²),accélération z (m/s²),"
    "vitesse angulaire x (rad/s),vitesse angulaire y (rad/s),vitesse angulaire z (rad/s)": np.c_[SECONDS, ROWS],
    "时间,加速度X(g),加速度Y(g),加速度Z(g),角速度X(°/s),角速度Y(°/s),角速度Z(°/s)": np.c_[SECONDS, IN_G_AND_DEG],
    "time,gFx,gFy,gFz,wx,wy,wz": np.c_[SECONDS, ROWS[:, :3] / G, ROWS[:, 3:]],
    "seconds_elapsed,total_acc_x,total_acc_y,total_acc_z,body_acc_x,body_acc_y,body_acc_z,gyro_x,gyro_y,gyro_z":
        np.c_[SECONDS, ROWS[:, :3], MOVED, ROWS[:, 3:]],
    "PacketCounter,SampleTimeFine,Acc_X,Acc_Y,Acc_Z,Gyr_X,Gyr_Y,Gyr_Z":
        np.c_[np.arange(200), 1e6 + SECONDS * 1e6, ROWS[:, :3], ROWS[:, 3:] * DEG],
    "timestamp_ms,xacc,yacc,zacc,xgyro,ygyro,zgyro,xmag,ymag,zmag": np.c_[SECONDS * 1e3, ROWS, ROWS[:, :3]],
    "t,acc_0,acc_1,acc_2,gyro_0,gyro_1,gyro_2": np.c_[SECONDS, ROWS],
}  # fmt: skip


@pytest.mark.parametrize("header", APPS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_what_apps_and_data_sets_write(tmp_path, header, encoding):
    mark = ";" if ";" in header else ","
    lines = [header] + [mark.join(f"{value:.8g}" if abs(value) < 1e9 else f"{value:.0f}" for value in row)
                        for row in APPS[header]]  # fmt: skip
    (tmp_path / "a.csv").write_bytes("\n".join(lines).encode(encoding))
    sample = load("imu", tmp_path / "a.csv")
    assert np.abs(sample.array - ROWS).max() < 2e-3 and abs(sample.rate_hz - 50) < 0.01
    assert recognise(tmp_path / "a.csv")[0] == "imu"


def test_titles_in_latin_1_lines_before_them_and_marks_after_rows(tmp_path):
    rows = "\n".join(",".join(f"{value:.6f}" for value in row) + "," for row in np.c_[SECONDS, ROWS])
    titles = "t,ax (m/s²),ay (m/s²),az (m/s²),gx (°/s),gy (°/s),gz (°/s)\n"
    (tmp_path / "a.csv").write_bytes(f"Device:,é\nOutputRate:,60Hz\n\n{titles}{rows}\n".encode("latin-1"))
    array = load("imu", tmp_path / "a.csv").array
    assert np.abs(array - ROWS / [1, 1, 1, DEG, DEG, DEG]).max() < 1e-3


def test_the_rate_may_stand_before_the_table(tmp_path):
    path = csv(tmp_path / "a.csv", "Sampling rate: 104 Hz\nax,ay,az,gx,gy,gz", ROWS)
    assert load("imu", path).rate_hz == 104


def test_the_gyroscopes_unit_is_told_by_how_gravity_turns(tmp_path):
    slow = turning_slowly()
    for rows, factor, unit in ((TURNING, 1, "rad/s"), (slow, DEG, "deg/s")):
        table = rows * [1, 1, 1, factor, factor, factor]
        assert np.abs(table[:, 3:]).max() < 20  # which their size would take for radians
        path = csv(tmp_path / "a.csv", "t,ax,ay,az,gx,gy,gz", np.c_[np.arange(len(table)) / 50, table])
        sample = load("imu", path)
        assert np.abs(sample.array - rows).max() < 1e-3, unit
        assert any(f"{unit} was assumed from how gravity turns" in note for note in sample.notes)
        assert np.abs(load("imu", path, gyro_unit="rad/s").array[:, 3:] - table[:, 3:]).max() < 1e-3


def turning_slowly():
    """The same at a fifth of the rate, sampled as often."""
    rows = turning(300, 10.0)
    t = np.arange(1500) / 50
    return np.stack([np.interp(t, np.arange(300) / 10, column) for column in (rows / [1, 1, 1, 5, 5, 5]).T], axis=1)


def test_the_gyroscope_may_come_first_without_titles(tmp_path):
    table = np.c_[SECONDS, ROWS[:, 3:], ROWS[:, :3]]
    sample = load("imu", csv(tmp_path / "a.csv", None, table))
    assert np.abs(sample.array - ROWS).max() < 1e-3 and any("come first" in note for note in sample.notes)
    np.save(tmp_path / "a.npy", table)
    assert np.abs(load("imu", tmp_path / "a.npy").array - ROWS).max() < 1e-3


def test_acceleration_without_gravity_stays_in_its_unit_and_is_noted(tmp_path):
    sample = load("imu", csv(tmp_path / "a.csv", "ax,ay,az,gx,gy,gz", np.c_[0.3 * MOVED, ROWS[:, 3:]]))
    assert np.abs(sample.array[:, :3] - 0.3 * MOVED).max() < 1e-3
    assert any("no gravity in the acceleration" in note for note in sample.notes)


def test_raw_counts_are_scaled_by_gravity_and_said(tmp_path):
    counts = np.round(ROWS * np.array([16384 / G] * 3 + [131 * DEG] * 3))
    sample = load("imu", csv(tmp_path / "a.csv", "ax,ay,az,gx,gy,gz", counts))
    assert np.abs(sample.array - ROWS).max() < 1e-3 and sum("raw counts" in note for note in sample.notes) == 2


def test_scales_of_a_log(tmp_path):
    head = "GYROFLOW IMU LOG\nversion,1.3\ntscale,0.001\ngscale,0.001\nascale,0.01\nt,gx,gy,gz,ax,ay,az"
    table = np.c_[SECONDS * 1000, ROWS[:, 3:] / 0.001, ROWS[:, :3] / G / 0.01]
    sample = load("imu", csv(tmp_path / "a.gcsv", head, table))
    assert np.abs(sample.array - ROWS).max() < 1e-3 and abs(sample.rate_hz - 50) < 0.01


def test_an_accelerometer_alone_has_no_turning(tmp_path):
    sample = load("imu", csv(tmp_path / "a.csv", "time,seconds_elapsed,z,y,x", np.c_[SECONDS, SECONDS, ROWS[:, 2::-1]]))
    assert np.abs(sample.array[:, :3] - ROWS[:, :3]).max() < 1e-3 and (sample.array[:, 3:] == 0).all()
    assert any("no gyroscope" in note for note in sample.notes)


def test_a_sensor_a_row(tmp_path):
    lines = ["ts,sensor,x,y,z"]
    for second, row in zip(SECONDS, ROWS, strict=True):
        lines.append(f"{second * 1e3:.1f},Accelerometer,{row[0]:.5f},{row[1]:.5f},{row[2]:.5f}")
        lines.append(f"{second * 1e3 + 4:.1f},Gyroscope,{row[3]:.5f},{row[4]:.5f},{row[5]:.5f}")
    (tmp_path / "a.csv").write_text("\n".join(lines))
    sample = load("imu", tmp_path / "a.csv")
    assert np.abs(sample.array[:, :3] - ROWS[1 : len(sample.array) + 1, :3]).max() < 1e-3
    assert np.abs(sample.array[:, 3:] - ROWS[1 : len(sample.array) + 1, 3:]).max() < 0.01
    assert recognise(tmp_path / "a.csv")[0] == "imu"


def test_zip_of_a_table_a_sensor(tmp_path):
    import zipfile

    def table(header, rows):
        return "\n".join([header, *(",".join(f"{value:.6f}" for value in row) for row in rows)])

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a/Metadata.csv", "device,version\nphone,1\n")
        for name, rows in (("Accelerometer", MOVED), ("Gravity", DOWN), ("Gyroscope", ROWS[:, 3:])):
            archive.writestr(
                f"a/{name}.csv", table("time,seconds_elapsed,z,y,x", np.c_[SECONDS, SECONDS, rows[:, ::-1]])
            )
    sample = load("imu", tmp_path / "a.zip")
    assert np.abs(sample.array - ROWS).max() < 1e-3 and abs(sample.rate_hz - 50) < 0.01
    assert any("gravity was added" in note for note in sample.notes) and recognise(tmp_path / "a.zip") == ["imu"]


@pytest.mark.parametrize(
    "form", ["2024-01-01 10:00:{:06.3f}", "2024-01-01T10:00:{:06.3f}Z", "01.01.2024 10:00:{:06.3f}", "10:00:{:06.3f}"]
)
def test_dates_as_times(tmp_path, form):
    rows = [form.format(s) + "," + ",".join(map(str, row)) for s, row in zip(SECONDS, ROWS, strict=True)]
    (tmp_path / "a.csv").write_text("timestamp,ax,ay,az,gx,gy,gz\n" + "\n".join(rows))
    sample = load("imu", tmp_path / "a.csv")
    assert abs(sample.rate_hz - 50) < 0.01 and np.abs(sample.array - ROWS).max() < 1e-3


def test_times_of_whole_seconds_jitter_and_disorder(tmp_path):
    header = "t,ax,ay,az,gx,gy,gz"
    sample = load("imu", csv(tmp_path / "a.csv", header, np.c_[np.floor(SECONDS), ROWS]))
    assert abs(sample.rate_hz - 50) < 0.1 and any("same time" in note for note in sample.notes)
    jitter = np.round(np.arange(200) / 128, 3)  # 7 and 8 ms by turns
    assert abs(load("imu", csv(tmp_path / "a.csv", header, np.c_[jitter, ROWS])).rate_hz - 128) < 0.2
    order = np.random.default_rng(0).permutation(200)
    sample = load("imu", csv(tmp_path / "a.csv", header, np.c_[SECONDS, ROWS][order]))
    assert np.abs(sample.array - ROWS).max() < 1e-3 and any("sorted" in note for note in sample.notes)
    sample = load("imu", csv(tmp_path / "a.csv", header, np.c_[np.tile(SECONDS[:100], 2), ROWS]))
    assert np.abs(sample.array - ROWS).max() < 1e-3 and any("starts anew" in note for note in sample.notes)


def test_arrays_with_names(tmp_path):
    names = ["ax", "ay", "az", "gyro_x", "gyro_y", "gyro_z"]
    np.savez(tmp_path / "a.npz", timestamps=1.6e9 + SECONDS, **dict(zip(names, ROWS.T, strict=True)))
    assert np.abs(load("imu", tmp_path / "a.npz").array - ROWS).max() < 1e-3
    np.savez(tmp_path / "b.npz", linear_acceleration=ROWS[:, :3], angular_velocity=ROWS[:, 3:], time=SECONDS)
    sample = load("imu", tmp_path / "b.npz")
    assert np.abs(sample.array - ROWS).max() < 1e-3 and abs(sample.rate_hz - 50) < 0.01
    assert recognise(tmp_path / "b.npz") == ["imu"]


def test_rows_and_titles_that_come_twice(tmp_path):
    table, header = np.c_[SECONDS, ROWS], "t,ax,ay,az,gx,gy,gz"
    sample = load("imu", csv(tmp_path / "a.csv", header, np.repeat(table, 2, axis=0)))
    assert np.abs(sample.array - ROWS).max() < 1e-3 and any("there twice" in note for note in sample.notes)
    halves = [csv(tmp_path / "a.csv", header, half).read_text() for half in np.split(table, 2)]
    (tmp_path / "a.csv").write_text("".join(halves))
    sample = load("imu", tmp_path / "a.csv")
    assert np.abs(sample.array - ROWS).max() < 1e-3 and any("titles come again" in note for note in sample.notes)


def test_milli_units_words_and_marks_at_the_end_of_rows(tmp_path):
    table = np.c_[SECONDS * 1e6, np.round(ROWS[:, :3] / G * 1000), np.round(ROWS[:, 3:] * DEG * 1000)]
    array = load("imu", csv(tmp_path / "a.csv", "timestamp,ax,ay,az,gx,gy,gz", table)).array
    assert np.abs(array - ROWS).max() < 0.01
    rows = np.c_[SECONDS * 1e9, ROWS[:, :3]]
    lines = ["33,Jogging,{:.0f},{:.5f},{:.5f},{:.5f};".format(*row) for row in rows]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    sample = load("imu", tmp_path / "a.txt")
    assert np.abs(sample.array[:, :3] - ROWS[:, :3]).max() < 1e-3 and abs(sample.rate_hz - 50) < 0.01
    assert recognise(tmp_path / "a.txt")[0] == "imu"


def test_strong_acceleration_without_gravity_by_name_is_in_metres(tmp_path):
    header = "t,linear_acc_x,linear_acc_y,linear_acc_z,gx,gy,gz"
    sample = load("imu", csv(tmp_path / "a.csv", header, np.c_[SECONDS, 2 * MOVED, ROWS[:, 3:]]))
    assert np.abs(sample.array[:, :3] - 2 * MOVED).max() < 1e-3
    assert any("no gravity in the acceleration" in note for note in sample.notes)


def test_packed_tables(tmp_path):
    import gzip

    data = csv(tmp_path / "a.csv", "t,ax,ay,az,gx,gy,gz", np.c_[SECONDS, ROWS]).read_bytes()
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(data))
    assert np.abs(load("imu", tmp_path / "a.csv.gz").array - ROWS).max() < 1e-3
    assert recognise(tmp_path / "a.csv.gz") == ["imu"]
