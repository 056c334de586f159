"""The page of ``generation.py --task explore`` in headless Chromium, with a mouse and a keyboard.

Skipped where there is no browser; on Debian and Ubuntu: apt-get install chromium chromium-driver.
"""

import json
import shutil

import numpy as np
import pytest
from matplotlib import colormaps

from experiments import explorer
from experiments.trained import load

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install -r requirements-dev.txt")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs chromium and chromedriver on the PATH")


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):  # in a container, as root
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def window(browser, width, height):
    sizes = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sizes)


def pixels(browser, canvas, *box):
    script = "return [...document.getElementById(arguments[0]).getContext('2d').getImageData(...arguments[1]).data]"
    return browser.execute_script(script, canvas, box)


@pytest.fixture(scope="module")
def components(trained):
    """Mean, standard deviations and directions of the first four components of the test codes, by numpy."""
    run = load(trained / "digits" / "irmae")
    codes = run.encode(run.dataset("test")).double().numpy()
    mean = codes.mean(axis=0)
    _, values, directions = np.linalg.svd(codes - mean, full_matrices=False)
    sigma = values[:4] / np.sqrt(len(codes) - 1)
    return run, mean, sigma, directions[:4], (codes - mean) @ directions[:4].T / sigma


def test_a_click_and_a_drag_show_what_the_decoder_makes_there(
    trained, tmp_path, call, monkeypatch, browser, components
):
    run, mean, sigma, directions, points = components
    chosen = int(np.abs(np.abs(points[:, :2]) - 1).sum(axis=1).argmin())  # between centre and edge, whatever the signs
    monkeypatch.setattr(explorer, "STEPS", 5)  # -2, -1, 0, 1, 2
    monkeypatch.setattr(explorer, "POINTS", chosen + 1)  # drawn last, above the others
    flags = ("--dataset", "digits", "--checkpoint", trained, "--save-path", tmp_path, "--model-name", "irmae")
    assert call("generation.py", "--task", "explore", *flags).status == 0

    window(browser, 1280, 800)
    browser.get((tmp_path / "digits" / "explore" / "irmae.html").as_uri())
    browser.execute_async_script("get('sprite').decode().then(() => requestAnimationFrame(arguments[0]))")
    content = json.loads(browser.find_element(By.ID, "content").get_attribute("textContent"))
    signs = np.sign((np.array(content["points"]) * points[: chosen + 1]).sum(axis=0))  # a direction has two
    plane, edge = browser.find_element(By.ID, "plane"), browser.execute_script("return limit()")
    at = lambda x, y: (round(x / edge * 280), round(-y / edge * 280))  # noqa: E731  pixels from the plane's centre

    def act():
        return webdriver.ActionChains(browser, duration=20)

    def assert_shows(*place):
        """The image is what the model, in Python, makes of the code at so many standard deviations."""
        decoded = run.decode((mean + (np.array(place) * signs * sigma) @ directions)[None]).numpy()[0, 0] * 255
        shown = np.reshape(pixels(browser, "image", 0, 0, 32, 32), (32, 32, 4))
        assert np.abs(shown[..., :3] - decoded[..., None]).max() <= 1 and (shown[..., 3] == 255).all()
        words = [browser.find_element(By.ID, f"at{k}").text for k in range(4)]
        assert words == [f"{v:.2f}σ".replace("-", "−") for v in place]

    assert_shows(0, 0, 0, 0)
    x, y = signs[:2] * points[chosen, :2]
    colour = pixels(browser, "plane", 280 + at(x, y)[0], 280 + at(x, y)[1], 1, 1)
    assert colour == list(colormaps["tab10"](int(run.dataset("test").labels[chosen]), bytes=True))  # it is drawn there
    act().move_to_element_with_offset(plane, *at(x, y)).click().perform()
    assert_shows(round(x), round(y), 0, 0)

    start, end = at(1, 1), at(-1.2, 0.1)
    act().move_to_element_with_offset(plane, *start).click_and_hold().perform()
    assert_shows(1, 1, 0, 0)
    act().move_by_offset(end[0] - start[0], end[1] - start[1]).perform()
    assert_shows(-1, 0, 0, 0)
    slider = browser.find_element(By.ID, "slider2")
    act().release().move_to_element_with_offset(plane, *at(1, 1)).perform()  # on the way nothing changes
    assert_shows(-1, 0, 0, 0)
    act().click_and_hold(slider).move_by_offset(slider.size["width"], 0).release().perform()
    assert_shows(-1, 0, 2, 0)
    browser.find_element(By.ID, "slider3").send_keys(Keys.ARROW_LEFT)
    assert_shows(-1, 0, 2, -1)

    browser.find_element(By.ID, "y").send_keys("component 4")  # the plane of components 1 and 4
    edge = browser.execute_script("return limit()")
    act().move_to_element_with_offset(plane, *at(2, 1)).click().perform()
    assert_shows(2, 0, 2, 1)
    assert browser.find_element(By.ID, "image").rect["y"] < 200  # beside the plane
    window(browser, 420, 900)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 420
    log = [entry["message"] for entry in browser.get_log("browser")]
    assert not [message for message in log if "getImageData" not in message], log  # advice on what the test does
