"""The page's theme: calm, high contrast, light and dark; system fonts only, so that nothing is fetched."""

from pathlib import Path

import gradio as gr
from gradio.themes.utils.colors import Color

from onellm.web.views import icons

FOLDER = Path(__file__).parent.parent
CSS = "\n".join([icons.css(), *(file.read_text(encoding="utf-8") for file in sorted(FOLDER.glob("style/*.css")))])
HEAD = "".join(f"<script>{file.read_text(encoding='utf-8')}</script>" for file in sorted(FOLDER.glob("js/*.js")))

TEAL = Color(
    name="teal",
    c50="#effaf8",
    c100="#d6f1ed",
    c200="#aee3db",
    c300="#7fcfc4",
    c400="#4bb5a8",
    c500="#22958a",
    c600="#117a70",
    c700="#0f655e",
    c800="#10504b",
    c900="#10423e",
    c950="#07302d",
)
INK = Color(
    name="ink",
    c50="#f7f8f9",
    c100="#eff1f3",
    c200="#e1e5e8",
    c300="#cbd2d8",
    c400="#97a2ac",
    c500="#5f6b76",
    c600="#4a555f",
    c700="#353f48",
    c800="#232b32",
    c900="#192026",
    c950="#11161b",
)


def theme() -> gr.themes.Base:
    """Build the theme: teal on ink."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
    mono = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
    base = gr.themes.Base(
        primary_hue=TEAL,
        secondary_hue=TEAL,
        neutral_hue=INK,
        radius_size=gr.themes.sizes.radius_lg,
        font=fonts,
        font_mono=mono,
    )
    return base.set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_900",
        body_text_color_dark="#e8ecef",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="#a9b4bd",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_50",
        background_fill_secondary_dark="*neutral_800",
        block_background_fill="#ffffff",
        block_background_fill_dark="*neutral_900",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_700",
        block_shadow="none",
        border_color_primary="*neutral_200",
        border_color_primary_dark="*neutral_700",
        input_background_fill="#ffffff",
        input_background_fill_dark="*neutral_900",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_700",
        input_border_color_focus="*primary_500",
        input_border_color_focus_dark="*primary_400",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="#97a2ac",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover_dark="*neutral_700",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_600",
        color_accent_soft="*primary_50",
        color_accent_soft_dark="#14302f",
        border_color_accent_subdued="*primary_100",
        border_color_accent_subdued_dark="#1d4643",
    )
