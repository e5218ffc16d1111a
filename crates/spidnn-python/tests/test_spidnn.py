"""The Python package on the virtual machine. `tests/package.rs` runs this."""

import contextlib
import doctest
import io
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest

import numpy as np

import spidnn


def samples(count, seed=1):
    return np.random.default_rng(seed).uniform(-1, 1, (count, 28, 28, 1)).astype(np.float32)


class Package(unittest.TestCase):
    def test_the_example_of_the_documentation(self):
        failed, run = doctest.testmod(spidnn)
        self.assertGreater(run, 0)
        self.assertEqual(failed, 0)

    def test_the_example_of_the_readme(self):
        readme = pathlib.Path(__file__).parents[3] / "README.md"
        code = readme.read_text().split("```python\n")[1].split("```")[0]
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as said:
            code = code.replace("trained.keras", os.path.join(folder, "trained.keras"))
            exec(compile(code, str(readme), "exec"), {})
        self.assertRegex(said.getvalue(), r"(?m)^99 \d .* ms$")
        self.assertIn("Epoch 2/2", said.getvalue())

    def test_a_session_trains_and_keeps_its_weights(self):
        model = spidnn.load_model("mlp", seed=3)
        self.assertIn("Dense", model.summary())
        x = samples(96)
        y = x[:, 0, :10, 0].argmax(axis=1)
        seen = []

        class Watch:
            def on_epoch_end(self, epoch, logs):
                seen.append((epoch, logs["loss"]))

        with model.on("virtual:spin3") as session, tempfile.TemporaryDirectory() as folder:
            history = session.fit(
                x,
                y,
                loss="sparse_categorical_crossentropy",
                optimizer="adam:learning_rate=0.01",
                epochs=3,
                metrics=["accuracy"],
                validation_split=0.25,
                callbacks=[Watch()],
                verbose=0,
            )
            self.assertEqual(history.epoch, [0, 1, 2])
            self.assertEqual([loss for _, loss in seen], history.history["loss"])
            self.assertLess(history.history["loss"][-1], history.history["loss"][0])
            self.assertIn("val_accuracy", history.history)
            scores = session.evaluate(x, y, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
            self.assertEqual(set(scores), {"loss", "accuracy"})
            path = os.path.join(folder, "trained.keras")
            session.save(path)
            again = spidnn.load_model(path)
            for ours, saved in zip(session.get_weights(), again.get_weights(), strict=True):
                np.testing.assert_array_equal(ours, saved)
            self.assertGreater(session.usage()["machine_time_s"], 0)

    def test_a_callback_ends_the_fit_or_raises(self):
        x, y = samples(32), np.zeros(32)

        class Stop:
            def on_epoch_end(self, epoch, logs):
                return epoch == 1

        class Fail:
            def on_epoch_end(self, epoch, logs):
                raise LookupError("seen by the caller")

        with spidnn.load_model("mlp").on("virtual:spin3") as session:
            arguments = {"loss": "sparse_categorical_crossentropy", "epochs": 5, "verbose": 0}
            self.assertEqual(session.fit(x, y, callbacks=[Stop()], **arguments).epoch, [0, 1])
            with self.assertRaisesRegex(LookupError, "seen by the caller"):
                session.fit(x, y, callbacks=[Fail()], **arguments)

    def test_bad_input_is_a_value_error_that_says_what_is_wrong(self):
        with self.assertRaisesRegex(ValueError, "no-such-file"):
            spidnn.load_model("no-such-file.keras")
        model = spidnn.load_model("mlp")
        with self.assertRaisesRegex(ValueError, "`nowhere`"):
            model.on("virtual:nowhere")
        with self.assertRaisesRegex(spidnn.InputError, "f32, bfp16 and int8"):
            model.on("virtual:spin3", format="float64")
        with model.on("virtual:spin3") as session:
            with self.assertRaisesRegex(ValueError, "28, 28, 1"):
                session.predict(np.zeros((2, 3)))
            with self.assertRaisesRegex(ValueError, "adam"):
                session.fit(samples(4), np.zeros(4), loss="mse", optimizer="adamm")
        with self.assertRaisesRegex(RuntimeError, "closed"):
            session.predict(samples(1))


class Streams(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.session = spidnn.load_model("mlp", seed=5).on("virtual:spin3")
        cls.x = samples(40)
        cls.y = cls.session.predict(cls.x)

    @classmethod
    def tearDownClass(cls):
        cls.session.close()

    def test_outputs_come_in_order_with_the_bits_of_predict_and_the_times_of_the_machine(self):
        for _ in range(2):
            before = 0
            for i, output in enumerate(self.session.stream(self.x, capacity=8)):
                self.assertEqual(output.sequence, i)
                np.testing.assert_array_equal(output.values[0], self.y[i])
                self.assertGreater(output.latency_s, 0)
                self.assertGreaterEqual(output.answered_ns, before)
                before = output.answered_ns
            self.assertEqual(i, 39)
            # The session is free again.
            np.testing.assert_array_equal(self.session.predict(self.x), self.y)

    def test_no_more_inputs_are_taken_than_there_is_room_for(self):
        taken = []

        def source():
            for i, x in enumerate(self.x):
                taken.append(i)
                yield x

        for output in self.session.stream(source(), capacity=4):
            self.assertLessEqual(len(taken), output.sequence + 5)

    def test_a_source_may_have_nothing_yet(self):
        source = (x for pair in zip(self.x, [None] * 40) for x in pair)
        numbers = [output.sequence for output in self.session.stream(source)]
        self.assertEqual(numbers, list(range(40)))

    def test_samples_are_pushed_and_outputs_popped(self):
        with self.session.stream(capacity=3) as stream:
            self.assertEqual([stream.push(x) for x in self.x[:4]], [0, 1, 2, None])
            self.assertEqual(stream.room(), 0)
            with self.assertRaisesRegex(RuntimeError, "a stream is open"):
                self.session.predict(self.x)
            np.testing.assert_array_equal(stream.pop().values[0], self.y[0])
            with self.assertRaisesRegex(ValueError, "28, 28, 1"):
                stream.push(np.zeros(3))
            self.assertEqual([output.sequence for output in stream], [1, 2])
            self.assertIsNone(stream.pop())
        with self.assertRaisesRegex(RuntimeError, "closed"):
            stream.push(self.x[0])

    def test_a_stream_that_is_left_gives_the_session_back(self):
        stream = self.session.stream(self.x)
        next(stream)
        stream.close()
        np.testing.assert_array_equal(self.session.predict(self.x), self.y)


class CtrlC(unittest.TestCase):
    def test_a_fit_ends_after_its_batch_with_a_checkpoint(self):
        with tempfile.TemporaryDirectory() as folder:
            script = f"""
                import signal, numpy as np, spidnn
                # A test in the background may have inherited that it is ignored.
                signal.signal(signal.SIGINT, signal.default_int_handler)
                session = spidnn.load_model("mlp").on("virtual:spin3")
                x = np.zeros((64, 28, 28, 1), np.float32)
                session.fit(x, np.zeros(64), loss="sparse_categorical_crossentropy", epochs=100000,
                            checkpoint={folder!r})
            """
            child = subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            self.assertIn("Epoch 1/", child.stdout.readline())
            child.send_signal(signal.SIGINT)
            asked = time.monotonic()
            _, errors = child.communicate(timeout=60)
            self.assertIn("KeyboardInterrupt", errors)
            self.assertLess(time.monotonic() - asked, 30)
            self.assertTrue(os.listdir(folder))


if __name__ == "__main__":
    unittest.main()
